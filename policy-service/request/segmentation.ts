import { grown } from '../grown.ts';

/** Segments beyond this many are forgotten, oldest first. */
const MAX_STARTS = 4096;

/**
 * The segments of one request's reasoning: the engine says at which tokens they start, and a block
 * belongs to the segment of its middle.
 */
export class Segmentation {
  /** Ascending, in tokens. */
  starts: number[] = [];
  /** The segment of each assigned block, ascending; undefined: the engine named none. Index: logical block. */
  ofBlocks: Int32Array<ArrayBuffer> | undefined;
  readonly #blockSize: number;
  /** The next block to be assigned. */
  #next: number;
  /** Starts beyond the middle of the last assigned block. */
  #ahead: number[] = [];
  #current = 0;

  constructor(blockSize: number, firstBlock: number) {
    this.#blockSize = blockSize;
    this.#next = firstBlock;
  }

  /** Takes the starts of a step in; those beyond its `tokens` make no sense and are dropped. */
  add(starts: readonly number[], tokens: number): void {
    for (const start of starts) {
      if (start > tokens) continue;
      this.starts.push(start);
      this.#ahead.push(start);
    }
    if (this.starts.length > MAX_STARTS) this.starts = this.starts.slice(-MAX_STARTS);
  }

  /** Assigns the blocks below `end` that have no segment yet; later starts do not move them. */
  assign(end: number): void {
    for (; this.#next < end; this.#next += 1) {
      const middle = (this.#next + 0.5) * this.#blockSize;
      while (this.#ahead.length > 0 && this.#ahead[0]! <= middle) {
        this.#ahead.shift();
        this.#current += 1;
      }
      if (this.#current === 0) continue;
      this.ofBlocks = grown(this.ofBlocks ?? new Int32Array(64), this.#next + 1);
      this.ofBlocks[this.#next] = this.#current;
    }
  }
}
