import { type KeepRule, Scale, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { Arena, Kernels } from '../kernels/kernels.ts';
import type { CacheLayout, MergeBlocks } from './cache-layout.ts';
import { isFollowable, keptBy } from './keep-rule.ts';
import { type FigureBuffer, TokenFigures } from './token-figures.ts';
import { KEPT_STATISTICS, type TokenStatistics } from './token-statistics.ts';

/** Used without a rule from the policy service: the tokens that later tokens repeat most are dropped. */
const DEFAULT_RULE: KeepRule = {
  stages: [
    {
      share: 1,
      terms: [{ statistic: Statistic.STATISTIC_DISTINCT_KEYS, weight: 1, scale: Scale.SCALE_UNSPECIFIED, pool: 0 }],
      sampled: false,
    },
  ],
  seed: 0,
};

/**
 * Merges KV blocks. Each layer and KV head keeps the tokens that a rule values most and moves them together.
 */
export class BlockMerger {
  readonly #arena: Arena;
  readonly #layout: CacheLayout;
  readonly #statistics: TokenStatistics;
  readonly #figures: TokenFigures;
  /** Position of the token in each slot: [layers][blocks][kvHeads][blockSize]. */
  readonly #positions: Int32Array;

  /** Nothing may be reserved in the arena after this. */
  constructor(arena: Arena, kernels: Kernels, layout: CacheLayout, statistics: TokenStatistics, room: MergeRoom) {
    this.#arena = arena;
    this.#layout = layout;
    this.#statistics = statistics;
    const { layers, blocks, kvHeads, blockSize } = layout;
    this.#positions = arena.ints(room.slots, layers * blocks * kvHeads * blockSize);
    const positionsOf = (layer: number, block: number, head: number) => this.positions(layer, block, head);
    this.#figures = new TokenFigures(arena, kernels, layout, room, statistics, positionsOf);
  }

  /** Room in the arena for positions and for the tokens of one merge, before views of it are made. */
  static reserve(arena: Arena, layout: CacheLayout): MergeRoom {
    const { layers, blocks, kvHeads, blockSize, headDim, maxPositions } = layout;
    const tokens = Math.ceil(maxPositions / blockSize) * blockSize;
    return {
      slots: arena.reserve(layers * blocks * kvHeads * blockSize * 4),
      vectors: arena.reserve(tokens * headDim * 4),
      positions: arena.reserve(tokens * 4),
      repetition: arena.reserve(tokens * 4),
    };
  }

  /** Records a token that is stored in slot `position % blockSize` of a block, for all heads of a layer. */
  stored(layer: number, block: number, position: number): void {
    const { kvHeads, blockSize } = this.#layout;
    const slot = this.#slot(layer, block, 0) + (position % blockSize);
    for (let head = 0; head < kvHeads; head++) this.#positions[slot + head * blockSize] = position;
    this.#statistics.stored(layer, block, position % blockSize);
  }

  /** [blockSize] Positions of the tokens in a block's slots; a view. */
  positions(layer: number, block: number, head: number): Int32Array {
    const slot = this.#slot(layer, block, head);
    return this.#positions.subarray(slot, slot + this.#layout.blockSize);
  }

  #slot(layer: number, block: number, head: number): number {
    const { blocks, kvHeads, blockSize } = this.#layout;
    return ((layer * blocks + block) * kvHeads + head) * blockSize;
  }

  /** Whether a rule can be followed: it is well-formed, and the statistics that it needs are known or kept. */
  canFollow(rule: KeepRule): boolean {
    return isFollowable(rule, (statistic) => this.#statistics.keeps(statistic) || !KEPT_STATISTICS.includes(statistic));
  }

  /** Moves the kept tokens into `into`, in any order. The content of `from` is undefined afterwards. */
  merge(merged: MergeBlocks, rule: KeepRule = DEFAULT_RULE): void {
    const { layers, kvHeads } = this.#layout;
    for (let layer = 0; layer < layers; layer++) {
      for (let head = 0; head < kvHeads; head++)
        this.#compact(layer, head, merged, this.#keep(layer, head, merged, rule));
    }
  }

  /** Marks the slots of `into` and `from`, in this order, that stay: as many as `into` has. */
  #keep(layer: number, head: number, merged: MergeBlocks, rule: KeepRule): Uint8Array {
    const { blockSize, kvHeads } = this.#layout;
    const candidates = {
      positions: this.#figures.positions(layer, head, [...merged.into, ...merged.from]),
      group: layer * kvHeads + head,
      figures: (statistic: Statistic) => this.#figures.of(statistic, layer, head, merged),
    };
    return keptBy(rule, candidates, merged.into.length * blockSize);
  }

  /** Moves what `from` keeps to the slots of `into` that are dropped. */
  #compact(layer: number, head: number, { into, from }: MergeBlocks, stays: Uint8Array): void {
    const { blockSize } = this.#layout;
    const slots = Array.from({ length: (into.length + from.length) * blockSize }, (_, slot) => slot);
    const first = into.length * blockSize;
    const vacant = slots.filter((slot) => slot < first && stays[slot] === 0);
    const kept = slots.filter((slot) => slot >= first && stays[slot] === 1);
    const sources = [...into, ...from];
    for (const [i, slot] of kept.entries()) {
      const target = vacant[i]!;
      const source = { block: sources[Math.floor(slot / blockSize)]!, offset: slot % blockSize };
      this.#move(layer, head, source, {
        block: sources[Math.floor(target / blockSize)]!,
        offset: target % blockSize,
      });
    }
  }

  #move(layer: number, head: number, source: Slot, target: Slot): void {
    const { blockSize, headDim, values } = this.#layout;
    const size = blockSize * headDim;
    const oldKeys = this.#arena.floats(this.#keysAt(layer, source.block, head), size);
    const newKeys = this.#arena.floats(this.#keysAt(layer, target.block, head), size);
    for (let at = 0; at < size; at += blockSize) newKeys[at + target.offset] = oldKeys[at + source.offset]!;
    const oldValues = this.#arena.floats(values + this.#offset(layer, source.block, head), size);
    const newValues = this.#arena.floats(values + this.#offset(layer, target.block, head), size);
    const value = oldValues.subarray(source.offset * headDim, (source.offset + 1) * headDim);
    newValues.set(value, target.offset * headDim);
    this.positions(layer, target.block, head)[target.offset] = this.positions(layer, source.block, head)[
      source.offset
    ]!;
    this.#statistics.moved(layer, head, [source.block, source.offset], [target.block, target.offset]);
  }

  #keysAt(layer: number, block: number, head: number): number {
    return this.#layout.keys + this.#offset(layer, block, head);
  }

  #offset(layer: number, block: number, head: number): number {
    const { layerBytes, headBytes, kvHeads } = this.#layout;
    return layer * layerBytes + (block * kvHeads + head) * headBytes;
  }
}

/** Where a merger keeps what it needs in the arena. */
export interface MergeRoom extends FigureBuffer {
  /** Positions of the tokens in all slots. */
  slots: number;
}

/** A token's place in the cache of one layer and KV head. */
interface Slot {
  block: number;
  offset: number;
}
