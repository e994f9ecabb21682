import { type KeepRule, Scale, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { Arena, Kernels } from '../kernels/kernels.ts';
import { type CacheLayout, type MergeBlocks, slotsOf, type TokenSlots } from './cache-layout.ts';
import { isFollowable, keptBy, moves } from './keep-rule.ts';
import { type FigureBuffer, TokenFigures } from './token-figures.ts';
import { TokenPositions } from './token-positions.ts';
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
  readonly #positions: TokenPositions;

  /** Nothing may be reserved in the arena after this. */
  constructor(arena: Arena, kernels: Kernels, layout: CacheLayout, statistics: TokenStatistics, room: MergeRoom) {
    this.#arena = arena;
    this.#layout = layout;
    this.#statistics = statistics;
    this.#positions = new TokenPositions(arena, layout, room.positions);
    this.#figures = new TokenFigures(arena, kernels, layout, room.figures, statistics, this.#positions);
  }

  /** Room in the arena for positions and for the tokens of one merge, before views of it are made. */
  static reserve(arena: Arena, layout: CacheLayout): MergeRoom {
    return { positions: TokenPositions.reserve(arena, layout), figures: TokenFigures.reserve(arena, layout) };
  }

  /** Records a token that is stored in slot `position % blockSize` of a block, for all heads of a layer. */
  stored(layer: number, block: number, position: number): void {
    this.#positions.stored(layer, block, position);
    this.#statistics.stored(layer, block, position % this.#layout.blockSize);
  }

  /** [blockSize] Positions of the tokens in a block's slots; a view. */
  positions(layer: number, block: number, head: number): Int32Array {
    return this.#positions.of(layer, block, head);
  }

  /** Whether a rule can be followed: it is well-formed, and the statistics that it needs are known or kept. */
  canFollow(rule: KeepRule): boolean {
    return isFollowable(rule, (statistic) => this.#statistics.keeps(statistic) || !KEPT_STATISTICS.includes(statistic));
  }

  /** Moves the kept tokens into `into`, in any order. The content of `from` is undefined afterwards. */
  merge(merged: MergeBlocks, rule?: KeepRule): void {
    const { layers, kvHeads, blockSize } = this.#layout;
    const slots = {
      candidates: slotsOf([...merged.into, ...merged.from], blockSize),
      beside: slotsOf(merged.beside, blockSize),
    };
    const room = merged.into.length * blockSize;
    for (let layer = 0; layer < layers; layer++) {
      for (let head = 0; head < kvHeads; head++) {
        this.#compact(layer, head, merged, this.select(layer, head, slots, room, rule));
      }
    }
  }

  /** Marks the candidates that stay with 1: as many as there is room for. */
  select(layer: number, head: number, slots: TokenSlots, room: number, rule: KeepRule = DEFAULT_RULE): Uint8Array {
    const candidates = {
      positions: this.#positions.at(layer, head, slots.candidates),
      group: layer * this.#layout.kvHeads + head,
      figures: (statistic: Statistic) => this.#figures.of(statistic, layer, head, slots),
    };
    return keptBy(rule, candidates, room);
  }

  /** Moves what `from` keeps to the slots of `into` that are dropped. */
  #compact(layer: number, head: number, { into, from }: MergeBlocks, stays: Uint8Array): void {
    const { blockSize } = this.#layout;
    const sources = [...into, ...from];
    for (const [slot, target] of moves(stays, into.length * blockSize)) {
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
export interface MergeRoom {
  positions: number;
  figures: FigureBuffer;
}

/** A token's place in the cache of one layer and KV head. */
interface Slot {
  block: number;
  offset: number;
}
