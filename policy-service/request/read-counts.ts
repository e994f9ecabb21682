import { grown } from '../grown.ts';

/**
 * How often each block was read, and when last. Counted wherever hits are tested anyway; `wanted` has them tested at
 * every measured step, which costs time.
 */
export class ReadCounts {
  /** Hits are tested at every measured step from now on. */
  wanted = false;
  #hits = new Uint32Array(0);
  #lastTokens = new Uint32Array(0);

  /** Adds one measured step: `hits[i]` says whether `blocks[i]` was read, for the first `count`, ascending. */
  add(blocks: Int32Array, count: number, hits: Uint8Array, tokens: number): void {
    if (count === 0) return;
    const length = blocks[count - 1]! + 1;
    this.#hits = grown(this.#hits, length);
    this.#lastTokens = grown(this.#lastTokens, length);
    for (let i = 0; i < count; i += 1) {
      if (hits[i] === 0) continue;
      const block = blocks[i]!;
      this.#hits[block]! += 1;
      this.#lastTokens[block] = tokens;
    }
  }

  /** Tokens in the cache when the block was last read; 0: never, as far as was counted. */
  lastRead(block: number): number {
    return this.#lastTokens[block] ?? 0;
  }

  /**
   * For each of `blocks` logical blocks; both empty while nothing was counted. Tokens: those in the cache at the read.
   */
  counts(blocks: number): { hits: number[]; lastTokens: number[] } {
    if (this.#hits.length === 0) return { hits: [], lastTokens: [] };
    const upTo = (array: Uint32Array) => Array.from({ length: blocks }, (_, block) => array[block] ?? 0);
    return { hits: upTo(this.#hits), lastTokens: upTo(this.#lastTokens) };
  }
}
