import { type KeepRule, type KeepStage, type KeepTerm, Scale, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';

/** The candidates of a merge in one layer and KV head, in any order. */
export interface Candidates {
  /** Position of each. */
  positions: ArrayLike<number>;
  /** Number of the head group, layer * KV heads + KV head. */
  group: number;
  /** A figure of each candidate. Never called for POSITION and RANDOM. */
  figures(statistic: Statistic): ArrayLike<number>;
}

const KNOWN = new Set<number>(Object.values(Statistic).filter((value) => value > 0));
const SCALES = new Set<number>(Object.values(Scale).filter((value) => value >= 0));
/** They keep the logarithms finite when a value or a draw is 0. */
const LEAST_VALUE = 1e-9;
const LEAST_DRAW = 2 ** -25;

/** Whether a rule is well-formed and needs only statistics in `available`. */
export function isFollowable({ stages }: KeepRule, available: (statistic: Statistic) => boolean): boolean {
  return (
    stages.length > 0 &&
    stages.every(
      ({ share, terms }, i) =>
        (i === stages.length - 1 || (share > 0 && share <= 1)) &&
        terms.length > 0 &&
        terms.every(
          ({ statistic, weight, scale, pool }) =>
            KNOWN.has(statistic) &&
            available(statistic) &&
            SCALES.has(scale) &&
            Number.isFinite(weight) &&
            (pool === 0 || pool % 2 === 1),
        ),
    )
  );
}

/** Marks the `room` candidates that stay with 1. */
export function keptBy({ stages, seed }: KeepRule, candidates: Candidates, room: number): Uint8Array {
  const { positions } = candidates;
  const count = positions.length;
  const byPosition = Uint32Array.from({ length: count }, (_, i) => i).sort((a, b) => positions[a]! - positions[b]!);
  const kept = new Uint8Array(count);
  let left = room;
  for (const [i, stage] of stages.entries()) {
    const most =
      i === stages.length - 1 ? left : Math.min(left, Math.floor(Math.fround(Math.fround(stage.share) * room)));
    const values = valuesOf(stage, seed, candidates, byPosition);
    const order = Array.from(byPosition)
      .filter((token) => kept[token] === 0)
      .sort((a, b) => values[b]! - values[a]! || positions[b]! - positions[a]!);
    for (const token of order.slice(0, most)) kept[token] = 1;
    left -= Math.min(most, order.length);
  }
  return kept;
}

/** Where what stays beyond the first `room` candidates goes: to the places of the first ones that are dropped. */
export function moves(stays: Uint8Array, room: number): [from: number, to: number][] {
  const places = Array.from(stays, (_, place) => place);
  const vacant = places.filter((place) => place < room && stays[place] === 0);
  const moving = places.filter((place) => place >= room && stays[place] === 1);
  return moving.map((place, i) => [place, vacant[i]!]);
}

/** As float32: sums that differ by rounding only are equal. */
function valuesOf(stage: KeepStage, seed: number, candidates: Candidates, byPosition: Uint32Array): Float32Array {
  const values = new Float64Array(byPosition.length);
  for (const term of stage.terms) {
    const scaled = scale(term.scale, pooled(term, figuresOf(term.statistic, seed, candidates), byPosition), byPosition);
    for (let i = 0; i < values.length; i++) values[i]! += Math.fround(term.weight) * scaled[i]!;
  }
  if (!stage.sampled) return Float32Array.from(values);
  const { positions, group } = candidates;
  return Float32Array.from(values, (value, i) => {
    const draw = drawn(seed + 1, positions[i]!, group) + LEAST_DRAW;
    return Math.log(Math.max(0, value) + LEAST_VALUE) - Math.log(-Math.log(draw));
  });
}

function figuresOf(statistic: Statistic, seed: number, { positions, group, figures }: Candidates): Float64Array {
  if (statistic === Statistic.STATISTIC_POSITION) return Float64Array.from(positions);
  if (statistic === Statistic.STATISTIC_RANDOM) {
    return Float64Array.from(positions, (position) => drawn(seed, position, group));
  }
  return Float64Array.from(figures(statistic));
}

function pooled({ pool }: KeepTerm, figures: Float64Array, byPosition: Uint32Array): Float64Array {
  if (pool <= 1) return figures;
  const half = (pool - 1) / 2;
  const out = new Float64Array(figures.length);
  for (let i = 0; i < byPosition.length; i++) {
    let most = Number.NEGATIVE_INFINITY;
    for (let j = Math.max(0, i - half); j <= Math.min(byPosition.length - 1, i + half); j++) {
      most = Math.max(most, figures[byPosition[j]!]!);
    }
    out[byPosition[i]!] = most;
  }
  return out;
}

function scale(kind: Scale, figures: Float64Array, byPosition: Uint32Array): Float64Array {
  switch (kind) {
    case Scale.SCALE_RANK: {
      const out = new Float64Array(figures.length);
      // a stable sort of tokens by age: of equal figures the newest comes last
      const order = Array.from(byPosition).sort((a, b) => figures[a]! - figures[b]!);
      order.forEach((token, rank) => {
        out[token] = rank / figures.length;
      });
      return out;
    }
    case Scale.SCALE_SHARE: {
      const sum = figures.reduce((total, value) => total + value, 0);
      return sum === 0 ? new Float64Array(figures.length) : figures.map((value) => value / sum);
    }
    case Scale.SCALE_SOFTMAX: {
      const most = figures.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
      const powers = figures.map((value) => Math.exp(value - most));
      const sum = powers.reduce((total, value) => total + value, 0);
      return powers.map((value) => value / sum);
    }
    default:
      return figures;
  }
}

/** Uniform in [0, 1): see KeepRule in the contract. */
export function drawn(seed: number, position: number, group: number): number {
  let hash = seed ^ Math.imul(position, 0x9e3779b1) ^ Math.imul(group, 0x85ebca77);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 8) / 2 ** 24;
}
