import type { Arena } from '../kernels/kernels.ts';
import type { CacheLayout } from './cache-layout.ts';

/** Position of the token in each slot of the cache: int32 [layers][blocks][kvHeads][blockSize]. */
export class TokenPositions {
  readonly #layout: CacheLayout;
  readonly #at: number;
  readonly #positions: Int32Array;

  /** `at`: as `reserve` gave it. Nothing may be reserved in the arena afterwards. */
  constructor(arena: Arena, layout: CacheLayout, at: number) {
    const { layers, blocks, kvHeads, blockSize } = layout;
    this.#layout = layout;
    this.#at = at;
    this.#positions = arena.ints(at, layers * blocks * kvHeads * blockSize);
  }

  /** Room in the arena, before views of it are made. */
  static reserve(arena: Arena, { layers, blocks, kvHeads, blockSize }: CacheLayout): number {
    return arena.reserve(layers * blocks * kvHeads * blockSize * 4);
  }

  /** A token is stored in slot `position % blockSize` of a block, for all heads of a layer. */
  stored(layer: number, block: number, position: number): void {
    const { kvHeads, blockSize } = this.#layout;
    const first = this.#index(layer, block, 0) + (position % blockSize);
    for (let head = 0; head < kvHeads; head++) this.#positions[first + head * blockSize] = position;
  }

  /** [blockSize] Of the tokens in a block; a view. */
  of(layer: number, block: number, head: number): Int32Array {
    const first = this.#index(layer, block, head);
    return this.#positions.subarray(first, first + this.#layout.blockSize);
  }

  /** Byte offset of the same in the arena. */
  address(layer: number, block: number, head: number): number {
    return this.#at + this.#index(layer, block, head) * 4;
  }

  /** Of the tokens in some slots: number of the block in the pool * block size + place in the block. */
  at(layer: number, head: number, slots: Int32Array): Int32Array {
    const { blockSize } = this.#layout;
    return slots.map(
      (slot) => this.#positions[this.#index(layer, Math.floor(slot / blockSize), head) + (slot % blockSize)]!,
    );
  }

  #index(layer: number, block: number, head: number): number {
    const { blocks, kvHeads, blockSize } = this.#layout;
    return ((layer * blocks + block) * kvHeads + head) * blockSize;
  }
}
