import { grown } from '../grown.ts';

/** What the service knows of a logical block. Only `resident` ones may be chosen for eviction. */
const RESIDENT = 0;
/** The engine said that it is gone. */
const HOLE = 1;
/** In a plan without an answer yet: decisions treat it as gone, measurements still hold a column for it. */
const PENDING = 2;
/** Shadow mode would have evicted it. It stays in the cache. */
const VIRTUAL = 3;

export interface BlockGeometry {
  /** Tokens per block. */
  blockSize: number;
  promptTokens: number;
  /** The engine's protections: the first and the newest tokens of a request. */
  sinkTokens: number;
  recentTokens: number;
}

/**
 * The blocks of one request, by logical index. The blocks beyond prompt and sinks that are in the cache are also kept
 * as an ascending list, so that the work of a step depends on what is resident and not on how long the request is.
 */
export class BlockTable {
  /** First block that may be evicted. */
  readonly first: number;
  /** First block that belongs wholly to the output. */
  readonly firstOutput: number;
  /** Logical blocks so far, holes included. */
  blocks = 0;
  holes = 0;
  pending = 0;
  virtual = 0;
  /** Resident blocks from `first` on, ascending; the first `liveCount` are valid. */
  live = new Int32Array(32);
  liveCount = 0;

  readonly #geometry: BlockGeometry;
  #states = new Uint8Array(32);
  /** The engine refused the block: it is not asked for again before the request has this many tokens. */
  #refusedUntil = new Uint32Array(32);
  #tokens = 0;
  /** Holes below `first`. An engine should have none, but its word is the truth. */
  #headHoles = 0;

  constructor(geometry: BlockGeometry) {
    this.#geometry = geometry;
    this.first = Math.ceil(Math.max(geometry.promptTokens, geometry.sinkTokens) / geometry.blockSize);
    this.firstOutput = Math.ceil(geometry.promptTokens / geometry.blockSize);
  }

  get tokens(): number {
    return this.#tokens;
  }

  get blockSize(): number {
    return this.#geometry.blockSize;
  }

  /** One after the last block that may be evicted: newest tokens and unfilled tail lie beyond. Never below `first`. */
  get last(): number {
    const { blockSize, recentTokens } = this.#geometry;
    return Math.max(this.first, Math.floor((this.#tokens - recentTokens) / blockSize));
  }

  /** Blocks in the cache: the columns of a measurement. */
  get resident(): number {
    return this.blocks - this.holes;
  }

  /** Columns of a measurement that lie before `live[0]`. */
  get headColumns(): number {
    return Math.min(this.blocks, this.first) - this.#headHoles;
  }

  /** Blocks that decisions treat as gone. */
  get gone(): number {
    return this.holes + this.pending + this.virtual;
  }

  /** Output blocks that a cache of `tokens` tokens holds when nothing more is evicted. */
  outputBlocksAt(tokens: number): number {
    const all = Math.ceil(tokens / this.blockSize) - this.firstOutput;
    return Math.max(0, all) - this.gone;
  }

  /** How many of `live` lie in the evictable range, whatever their state. */
  get liveEvictable(): number {
    const last = this.last;
    let count = this.liveCount;
    while (count > 0 && this.live[count - 1]! >= last) count -= 1;
    return count;
  }

  advance(tokens: number): void {
    this.#tokens = tokens;
    const blocks = Math.ceil(tokens / this.blockSize);
    this.#reserve(blocks);
    for (let block = Math.max(this.blocks, this.first); block < blocks; block += 1) {
      this.live[this.liveCount] = block;
      this.liveCount += 1;
    }
    if (blocks > this.blocks) this.blocks = blocks;
  }

  /** Writes the blocks that may be chosen to `out`, ascending, and returns how many. */
  candidates(out: Int32Array): number {
    const end = this.liveEvictable;
    let count = 0;
    for (let i = 0; i < end; i += 1) {
      const block = this.live[i]!;
      if (this.#states[block] === RESIDENT && this.#refusedUntil[block]! <= this.#tokens) {
        out[count] = block;
        count += 1;
      }
    }
    return count;
  }

  isHole(block: number): boolean {
    return this.#states[block] === HOLE;
  }

  isVirtual(block: number): boolean {
    return this.#states[block] === VIRTUAL;
  }

  markPending(block: number): void {
    this.#states[block] = PENDING;
    this.pending += 1;
  }

  markVirtual(block: number): void {
    this.#states[block] = VIRTUAL;
    this.virtual += 1;
  }

  /** The engine says that these are gone. Returns how many were not holes before; indices beyond the cache are not. */
  markHoles(blocks: readonly number[]): number {
    let fresh = 0;
    for (const block of blocks) {
      if (block >= this.blocks || this.#states[block] === HOLE) continue;
      this.#leave(block);
      this.#states[block] = HOLE;
      if (block < this.first) this.#headHoles += 1;
      fresh += 1;
    }
    if (fresh === 0) return 0;
    this.holes += fresh;
    let kept = 0;
    for (let i = 0; i < this.liveCount; i += 1) {
      const block = this.live[i]!;
      if (this.#states[block] === HOLE) continue;
      this.live[kept] = block;
      kept += 1;
    }
    this.liveCount = kept;
    return fresh;
  }

  /** Makes those of an answered plan that are still pending resident again. */
  restore(blocks: readonly number[]): void {
    for (const block of blocks) {
      if (this.#states[block] !== PENDING) continue;
      this.#leave(block);
      this.#states[block] = RESIDENT;
    }
  }

  /** Shadow mode did not take these away after all. */
  restoreVirtual(blocks: readonly number[]): void {
    for (const block of blocks) {
      if (this.#states[block] !== VIRTUAL) continue;
      this.#leave(block);
      this.#states[block] = RESIDENT;
    }
  }

  /** The engine refused these: they are not asked for again before another block is filled. */
  refuse(blocks: readonly number[]): void {
    for (const block of blocks) if (block < this.blocks) this.#refusedUntil[block] = this.#tokens + this.blockSize;
  }

  clearVirtual(): void {
    if (this.virtual === 0) return;
    for (let i = 0; i < this.liveCount; i += 1) {
      const block = this.live[i]!;
      if (this.#states[block] === VIRTUAL) this.#states[block] = RESIDENT;
    }
    this.virtual = 0;
  }

  /** The engine dropped the cache: everything will be computed again, without holes. */
  reset(): void {
    this.#states.fill(RESIDENT);
    this.#refusedUntil.fill(0);
    this.blocks = 0;
    this.holes = 0;
    this.pending = 0;
    this.virtual = 0;
    this.liveCount = 0;
    this.#headHoles = 0;
    this.#tokens = 0;
  }

  #leave(block: number): void {
    if (this.#states[block] === PENDING) this.pending -= 1;
    if (this.#states[block] === VIRTUAL) this.virtual -= 1;
  }

  #reserve(blocks: number): void {
    this.#states = grown(this.#states, blocks);
    this.#refusedUntil = grown(this.#refusedUntil, blocks);
    this.live = grown(this.live, blocks);
  }
}
