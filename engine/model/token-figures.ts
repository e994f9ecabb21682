import { Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { Arena, Kernels } from '../kernels/kernels.ts';
import type { CacheLayout, TokenSlots } from './cache-layout.ts';
import type { TokenPositions } from './token-positions.ts';
import { KEPT_STATISTICS, type TokenStatistics } from './token-statistics.ts';

/** Similarities are compared in steps of this size: what differs by rounding only is equal. */
const RESOLUTION = 1e-3;

/** Statistics that are computed when blocks are merged, beside those that are kept. */
const COMPUTED: readonly Statistic[] = [
  Statistic.STATISTIC_DISTINCT_KEYS,
  Statistic.STATISTIC_DISTINCT_VALUES,
  Statistic.STATISTIC_KEY_SIMILARITY,
  Statistic.STATISTIC_KEY_DIFFERENCE,
  Statistic.STATISTIC_VALUE_RANGE,
  Statistic.STATISTIC_POSITION,
  Statistic.STATISTIC_RANDOM,
];

/** The statistics by which this engine can value tokens. */
export const KNOWN_STATISTICS: readonly Statistic[] = [...KEPT_STATISTICS, ...COMPUTED];

/** Room for the tokens of one head group: vectors [tokens][headDim], positions and repetition [tokens]. */
export interface FigureBuffer {
  vectors: number;
  positions: number;
  repetition: number;
  /** Vectors of one block [blockSize][headDim]. */
  block: number;
}

/** Figures of tokens, one head group at a time; definitions are in the contract (`Statistic`). */
export class TokenFigures {
  readonly #arena: Arena;
  readonly #kernels: Kernels;
  readonly #layout: CacheLayout;
  readonly #buffer: FigureBuffer;
  readonly #statistics: TokenStatistics;
  readonly #positions: TokenPositions;

  constructor(
    arena: Arena,
    kernels: Kernels,
    layout: CacheLayout,
    buffer: FigureBuffer,
    statistics: TokenStatistics,
    positions: TokenPositions,
  ) {
    this.#arena = arena;
    this.#kernels = kernels;
    this.#layout = layout;
    this.#buffer = buffer;
    this.#statistics = statistics;
    this.#positions = positions;
  }

  /** Room in the arena, before views of it are made. */
  static reserve(arena: Arena, { blockSize, headDim, maxPositions }: CacheLayout): FigureBuffer {
    const tokens = Math.ceil(maxPositions / blockSize) * blockSize;
    return {
      vectors: arena.reserve(tokens * headDim * 4),
      positions: arena.reserve(tokens * 4),
      repetition: arena.reserve(tokens * 4),
      block: arena.reserve(blockSize * headDim * 4),
    };
  }

  /** A figure of the candidates, in their order. */
  of(statistic: Statistic, layer: number, head: number, { candidates, beside }: TokenSlots): ArrayLike<number> {
    const all = () => Int32Array.from([...candidates, ...beside]);
    switch (statistic) {
      case Statistic.STATISTIC_DISTINCT_KEYS:
        return this.#distinct(layer, head, candidates.length, all(), (slots) => this.#plainKeys(layer, head, slots));
      case Statistic.STATISTIC_DISTINCT_VALUES:
        return this.#distinct(layer, head, candidates.length, all(), (slots) => this.#unitValues(layer, head, slots));
      case Statistic.STATISTIC_KEY_SIMILARITY:
        return this.#similarity(layer, head, candidates);
      case Statistic.STATISTIC_KEY_DIFFERENCE:
        return this.#difference(layer, head, candidates);
      case Statistic.STATISTIC_VALUE_RANGE:
        return this.#valueRange(layer, head, candidates);
      default:
        return this.#statistics.at(statistic, layer, head, candidates);
    }
  }

  /** Minus the highest cosine of the first `count` with a later token's vector, in steps of RESOLUTION. */
  #distinct(
    layer: number,
    head: number,
    count: number,
    slots: Int32Array,
    write: (slots: Int32Array) => void,
  ): Float64Array {
    const { headDim } = this.#layout;
    const { vectors, positions, repetition } = this.#buffer;
    this.#arena.ints(positions, slots.length).set(this.#positions.at(layer, head, slots));
    write(slots);
    this.#kernels.repetition(repetition, vectors, positions, count, slots.length, headDim);
    return Float64Array.from(
      this.#arena.floats(repetition, count),
      (value) => -Math.round(value / RESOLUTION) * RESOLUTION,
    );
  }

  /** Writes keys as they were before rotation, of length 1. */
  #plainKeys(layer: number, head: number, slots: Int32Array): void {
    const { blockSize, headDim, cos, sin, keys } = this.#layout;
    const { vectors, block: at } = this.#buffer;
    const out = this.#arena.floats(vectors, slots.length * headDim);
    const ofBlock = this.#arena.floats(at, blockSize * headDim);
    for (const [block, places] of byBlock(slots, blockSize)) {
      const source = keys + this.#offset(layer, block, head);
      this.#kernels.plainKeys(at, source, this.#positions.address(layer, block, head), blockSize, headDim, cos, sin);
      for (const i of places) {
        const from = (slots[i]! % blockSize) * headDim;
        out.set(ofBlock.subarray(from, from + headDim), i * headDim);
      }
    }
  }

  #unitValues(layer: number, head: number, slots: Int32Array): void {
    const { headDim } = this.#layout;
    const out = this.#arena.floats(this.#buffer.vectors, slots.length * headDim);
    for (const [i, value] of this.#values(layer, head, slots).entries()) out.set(unit(value), i * headDim);
  }

  /** The mean over the others is that of all, less the token's own 1. */
  #similarity(layer: number, head: number, slots: Int32Array): Float64Array {
    const { blockSize, headDim, keys } = this.#layout;
    const vectors: Float64Array[] = [];
    for (const [block, places] of byBlock(slots, blockSize)) {
      const stored = this.#arena.floats(keys + this.#offset(layer, block, head), blockSize * headDim);
      for (const i of places) {
        const offset = slots[i]! % blockSize;
        vectors[i] = unit(Float64Array.from({ length: headDim }, (_, d) => stored[d * blockSize + offset]!));
      }
    }
    const sum = sumOf(vectors, headDim);
    const others = Math.max(1, vectors.length - 1);
    return Float64Array.from(vectors, (vector) => (dot(vector, sum) - dot(vector, vector)) / others);
  }

  #difference(layer: number, head: number, slots: Int32Array): Float64Array {
    const { headDim } = this.#layout;
    this.#plainKeys(layer, head, slots);
    const flat = this.#arena.floats(this.#buffer.vectors, slots.length * headDim);
    const vectors = Array.from(slots, (_, i) => flat.subarray(i * headDim, (i + 1) * headDim));
    const middle = unit(sumOf(vectors, headDim));
    return Float64Array.from(vectors, (vector) => -dot(vector, middle));
  }

  #valueRange(layer: number, head: number, slots: Int32Array): Float64Array {
    return Float64Array.from(this.#values(layer, head, slots), (value) => Math.max(...value) - Math.min(...value));
  }

  /** Views, in the order of `slots`. */
  #values(layer: number, head: number, slots: Int32Array): Float32Array[] {
    const { blockSize, headDim, values } = this.#layout;
    return Array.from(slots, (slot) => {
      const block = values + this.#offset(layer, Math.floor(slot / blockSize), head);
      return this.#arena.floats(block + (slot % blockSize) * headDim * 4, headDim);
    });
  }

  #offset(layer: number, block: number, head: number): number {
    const { layerBytes, headBytes, kvHeads } = this.#layout;
    return layer * layerBytes + (block * kvHeads + head) * headBytes;
  }
}

/** The places in `slots` of each block's tokens. */
function byBlock(slots: Int32Array, blockSize: number): Map<number, number[]> {
  const blocks = new Map<number, number[]>();
  slots.forEach((slot, i) => {
    const block = Math.floor(slot / blockSize);
    const places = blocks.get(block);
    if (places === undefined) blocks.set(block, [i]);
    else places.push(i);
  });
  return blocks;
}

type Vector = Float32Array | Float64Array;

function dot(a: Vector, b: Vector): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** Scales vectors to length 1; a vector of zeros stays. */
function unit(vector: Vector): Float64Array {
  const length = Math.sqrt(dot(vector, vector));
  return Float64Array.from(vector, (value) => (length > 0 ? value / length : 0));
}

function sumOf(vectors: readonly Vector[], size: number): Float64Array {
  const sum = new Float64Array(size);
  for (const vector of vectors) for (let d = 0; d < size; d++) sum[d]! += vector[d]!;
  return sum;
}
