import type { Arena, Kernels } from '../kernels/kernels.ts';

/** Blocks of one sequence, all full, by their number in the pool. */
export interface MergeBlocks {
  /** Hold the tokens that are kept, afterwards. */
  into: readonly number[];
  /** Are given up. */
  from: readonly number[];
  /** Other blocks of the sequence: repetitions in them count, and nothing in them changes. */
  beside: readonly number[];
}

/** Where a model keeps its cache; sizes in bytes. Layouts are in kernels/assembly/attention.ts. */
export interface CacheLayout {
  layers: number;
  kvHeads: number;
  headDim: number;
  blockSize: number;
  /** Blocks, the null block counted. */
  blocks: number;
  maxPositions: number;
  keys: number;
  values: number;
  layerBytes: number;
  headBytes: number;
  /** Rotation tables [maxPositions][headDim / 2]. */
  cos: number;
  sin: number;
}

/** Similarities are compared in steps of this size: what differs by rounding only is equal. */
const RESOLUTION = 1e-3;

/**
 * Merges KV blocks: drops the tokens whose keys later tokens repeat the most, for each layer and KV head by itself, and
 * moves the others together. Reasoning restates names and values as it goes; of several keys that answer the same
 * queries the newest is kept.
 *
 * After R-KV (arXiv 2505.24133), without its attention scores: cosine of keys, here before their rotation, so that the
 * same word at another position is the same key. Of equally repeated tokens the oldest goes.
 */
export class BlockMerger {
  readonly #arena: Arena;
  readonly #kernels: Kernels;
  readonly #layout: CacheLayout;
  /** Position of the token in each slot: [layers][blocks][kvHeads][blockSize]. */
  readonly #positions: Int32Array;
  /** The tokens of a merge: keys [tokens][headDim], positions and repetition [tokens]. */
  readonly #buffer: { keys: number; positions: number; repetition: number };

  /** Nothing may be reserved in the arena afterwards. */
  constructor(arena: Arena, kernels: Kernels, layout: CacheLayout) {
    this.#arena = arena;
    this.#kernels = kernels;
    this.#layout = layout;
    const { layers, blocks, kvHeads, blockSize, headDim, maxPositions } = layout;
    const tokens = Math.ceil(maxPositions / blockSize) * blockSize;
    const slots = layers * blocks * kvHeads * blockSize;
    const positions = arena.reserve(slots * 4);
    this.#buffer = {
      keys: arena.reserve(tokens * headDim * 4),
      positions: arena.reserve(tokens * 4),
      repetition: arena.reserve(tokens * 4),
    };
    this.#positions = arena.ints(positions, slots);
  }

  /** Takes note of a token that is stored in a block's slot `position % blockSize` of all heads of a layer. */
  stored(layer: number, block: number, position: number): void {
    const { kvHeads, blockSize } = this.#layout;
    const slot = this.#slot(layer, block, 0) + (position % blockSize);
    for (let head = 0; head < kvHeads; head++) this.#positions[slot + head * blockSize] = position;
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

  /** Afterwards `into` holds the tokens that are kept, in any order, and what is in `from` means nothing. */
  merge(merged: MergeBlocks): void {
    const { layers, kvHeads } = this.#layout;
    for (let layer = 0; layer < layers; layer++) {
      for (let head = 0; head < kvHeads; head++) this.#compact(layer, head, merged, this.#drop(layer, head, merged));
    }
  }

  /** The slots of `into` and `from`, in this order, that go: as many as `from` has. */
  #drop(layer: number, head: number, { into, from, beside }: MergeBlocks): Set<number> {
    const { blockSize, headDim, cos, sin } = this.#layout;
    const { keys, positions: positionsAt, repetition: repetitionAt } = this.#buffer;
    const all = [...into, ...from, ...beside];
    const total = all.length * blockSize;
    const count = (into.length + from.length) * blockSize;
    const positions = this.#arena.ints(positionsAt, total);
    for (const [i, block] of all.entries()) {
      positions.set(this.positions(layer, block, head), i * blockSize);
      const [out, at] = [keys + i * blockSize * headDim * 4, positionsAt + i * blockSize * 4];
      this.#kernels.plainKeys(out, this.#keysAt(layer, block, head), at, blockSize, headDim, cos, sin);
    }
    this.#kernels.repetition(repetitionAt, keys, positionsAt, count, total, headDim);
    const steps = Array.from(this.#arena.floats(repetitionAt, count), (value) => Math.round(value / RESOLUTION));
    const order = Array.from(steps.keys()).sort((a, b) => steps[b]! - steps[a]! || positions[a]! - positions[b]!);
    return new Set(order.slice(0, from.length * blockSize));
  }

  /** Moves what `from` keeps to the slots of `into` that are dropped. */
  #compact(layer: number, head: number, { into, from }: MergeBlocks, dropped: ReadonlySet<number>): void {
    const { blockSize } = this.#layout;
    const slots = Array.from({ length: (into.length + from.length) * blockSize }, (_, slot) => slot);
    const first = into.length * blockSize;
    const vacant = slots.filter((slot) => slot < first && dropped.has(slot));
    const kept = slots.filter((slot) => slot >= first && !dropped.has(slot));
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
  }

  #keysAt(layer: number, block: number, head: number): number {
    return this.#layout.keys + this.#offset(layer, block, head);
  }

  #offset(layer: number, block: number, head: number): number {
    const { layerBytes, headBytes, kvHeads } = this.#layout;
    return layer * layerBytes + (block * kvHeads + head) * headBytes;
  }
}

/** A token's place in the cache of one layer and KV head. */
interface Slot {
  block: number;
  offset: number;
}
