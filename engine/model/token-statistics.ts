import { Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { Arena, Kernels } from '../kernels/kernels.ts';
import type { CacheLayout } from './cache-layout.ts';

/** Which statistics are kept, and after how many queries their values are halved. */
export interface StatisticsOptions {
  statistics: ReadonlySet<Statistic>;
  attentionHalfLifeTokens: number;
  peakHalfLifeTokens: number;
}

/** How a query counts. */
export interface CountedQuery {
  position: number;
  /** Byte offset of the query's compacted row of block ids. */
  row: number;
  /** Blocks of the row whose tokens it counts for: `from` up to, not including, `to`. */
  from: number;
  to: number;
  /** A query of an answer probe: it says what an answer reads, and makes nothing older. */
  probe: boolean;
}

const ARRAYS = ['attention', 'total', 'peak', 'answer', 'before', 'now', 'last'] as const;
type ArrayName = (typeof ARRAYS)[number];

/** What each kept statistic is made of. */
const PARTS: ReadonlyMap<Statistic, readonly ArrayName[]> = new Map<Statistic, readonly ArrayName[]>([
  [Statistic.STATISTIC_ATTENTION, ['attention']],
  [Statistic.STATISTIC_TOTAL, ['total']],
  [Statistic.STATISTIC_PEAK, ['peak']],
  [Statistic.STATISTIC_ANSWER, ['answer']],
  [Statistic.STATISTIC_WINDOW, ['before', 'now']],
  [Statistic.STATISTIC_LAST, ['last']],
]);

/** The statistics of tokens that this engine can keep. */
export const KEPT_STATISTICS: readonly Statistic[] = [...PARTS.keys()];

/** Queries of half a window. */
const WINDOW_HALF = 64;

/**
 * What later queries gave each token, for each layer, KV head and slot of the cache; definitions are in the contract
 * (`Statistic`). Attention computes the weights anyway, so every query counts, at the price of a pass over them.
 *
 * float32: beside a token's keys and values, 8 * headDim bytes for each head, 4 bytes a statistic (two of them for the window).
 */
export class TokenStatistics {
  readonly #kernels: Kernels;
  readonly #layout: CacheLayout;
  readonly #addresses: Record<ArrayName, number>;
  readonly #floats: Record<ArrayName, Float32Array>;
  readonly #slots: number;
  #kept: ReadonlySet<ArrayName> = new Set();
  #attentionDecay = 1;
  #peakDecay = 1;

  /** `addresses`: as `reserve` gave them. Nothing may be reserved in the arena afterwards. */
  constructor(arena: Arena, kernels: Kernels, layout: CacheLayout, addresses: Record<ArrayName, number>) {
    this.#kernels = kernels;
    this.#layout = layout;
    this.#addresses = addresses;
    this.#slots = slotsOf(layout);
    this.#floats = byName((name) => arena.floats(addresses[name], this.#slots));
  }

  /** Room in the arena, before views of it are made. */
  static reserve(arena: Arena, layout: CacheLayout): Record<ArrayName, number> {
    return byName(() => arena.reserve(slotsOf(layout) * 4));
  }

  /** Keeps these statistics from now on; new ones begin at 0. undefined: none. */
  keep(options: StatisticsOptions | undefined): void {
    const wanted = [...(options?.statistics ?? [])].flatMap((statistic) => PARTS.get(statistic) ?? []);
    for (const name of wanted) if (!this.#kept.has(name)) this.#floats[name].fill(0);
    this.#kept = new Set(wanted);
    this.#attentionDecay = 2 ** (-1 / (options?.attentionHalfLifeTokens ?? Number.POSITIVE_INFINITY));
    this.#peakDecay = 2 ** (-1 / (options?.peakHalfLifeTokens ?? Number.POSITIVE_INFINITY));
  }

  get active(): boolean {
    return this.#kept.size > 0;
  }

  keeps(statistic: Statistic): boolean {
    return PARTS.get(statistic)?.every((name) => this.#kept.has(name)) ?? false;
  }

  /** A new token is stored in a slot of all KV heads: its statistics begin at 0. */
  stored(layer: number, block: number, offset: number): void {
    const { kvHeads, blockSize } = this.#layout;
    const slot = this.#slot(layer, block, 0) + offset;
    for (const name of this.#kept) {
      for (let head = 0; head < kvHeads; head++) this.#floats[name][slot + head * blockSize] = 0;
    }
  }

  /** @param mean, most [kvHeads][blocks][blockSize] the query's attention in this layer, as the attention kernel leaves it */
  note(layer: number, query: CountedQuery, mean: number, most: number, blocks: number): void {
    const { kvHeads, blockSize } = this.#layout;
    const kept = (name: ArrayName) => (this.#kept.has(name) ? this.#addresses[name] + this.#slot(layer, 0, 0) * 4 : 0);
    const { row, from, to, position } = query;
    const headBytes = blockSize * 4;
    for (let head = 0; head < kvHeads; head++) {
      const at = head * blocks * headBytes;
      const place = [row, from, to, head * headBytes, kvHeads * headBytes, blockSize] as const;
      if (query.probe) {
        this.#kernels.noteProbe(most + at, ...place, kept('peak'), kept('answer'));
        continue;
      }
      this.#kernels.noteQuery(
        mean + at,
        most + at,
        ...place,
        kept('attention'),
        kept('total'),
        kept('peak'),
        kept('answer'),
        kept('before'),
        kept('now'),
        kept('last'),
        this.#attentionDecay,
        this.#peakDecay,
        Number(position % WINDOW_HALF === 0),
      );
    }
  }

  /** As `note`, of a probe's query that is asked again: it says what an answer reads, and nothing else. */
  asked(
    layer: number,
    { row, from, to }: Omit<CountedQuery, 'position' | 'probe'>,
    most: number,
    blocks: number,
  ): void {
    if (!this.#kept.has('answer')) return;
    const { kvHeads, blockSize } = this.#layout;
    const headBytes = blockSize * 4;
    const answer = this.#addresses.answer + this.#slot(layer, 0, 0) * 4;
    for (let head = 0; head < kvHeads; head++) {
      const place = [row, from, to, head * headBytes, kvHeads * headBytes, blockSize] as const;
      this.#kernels.noteProbe(most + head * blocks * headBytes, ...place, 0, answer);
    }
  }

  /** [blockSize] A statistic of the tokens in a block; a copy. */
  read(statistic: Statistic, layer: number, block: number, head: number): Float32Array {
    const { blockSize } = this.#layout;
    const slot = this.#slot(layer, block, head);
    const out = new Float32Array(blockSize);
    for (const name of PARTS.get(statistic) ?? []) {
      const values = this.#floats[name];
      for (let j = 0; j < blockSize; j++) out[j]! += values[slot + j]!;
    }
    return out;
  }

  /** A statistic of the tokens in some slots of a layer and KV head; a copy. */
  at(statistic: Statistic, layer: number, head: number, slots: Int32Array): Float32Array {
    const { blockSize } = this.#layout;
    const out = new Float32Array(slots.length);
    for (const name of PARTS.get(statistic) ?? []) {
      const values = this.#floats[name];
      for (let i = 0; i < slots.length; i++) {
        const slot = slots[i]!;
        out[i]! += values[this.#slot(layer, Math.floor(slot / blockSize), head) + (slot % blockSize)]!;
      }
    }
    return out;
  }

  /** A token moves from slot to slot within a layer and KV head. */
  moved(layer: number, head: number, from: [block: number, offset: number], to: [block: number, offset: number]): void {
    const source = this.#slot(layer, from[0], head) + from[1];
    const target = this.#slot(layer, to[0], head) + to[1];
    for (const name of this.#kept) this.#floats[name][target] = this.#floats[name][source]!;
  }

  #slot(layer: number, block: number, head: number): number {
    const { blocks, kvHeads, blockSize } = this.#layout;
    return ((layer * blocks + block) * kvHeads + head) * blockSize;
  }
}

function slotsOf({ layers, blocks, kvHeads, blockSize }: CacheLayout): number {
  return layers * blocks * kvHeads * blockSize;
}

function byName<Value>(make: (name: ArrayName) => Value): Record<ArrayName, Value> {
  return Object.fromEntries(ARRAYS.map((name) => [name, make(name)])) as Record<ArrayName, Value>;
}
