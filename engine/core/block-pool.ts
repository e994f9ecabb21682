import { createHash } from 'node:crypto';

/** Block 0 marks a hole in a block table. It is never allocated, read or written. */
export const NULL_BLOCK = 0;

/**
 * The KV blocks of an engine: reference counts, a free queue in least-recently-used order, and the prefix cache.
 * A free block keeps its content, and can be found by its hash, until it is allocated again.
 */
export class BlockPool {
  /** Blocks in the pool, the null block not counted. */
  readonly total: number;
  /** Tokens per block. */
  readonly blockSize: number;
  readonly #refs: Int32Array;
  /** Free queue as a doubly linked list; index 0, the null block, is its head and tail. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #hashOf: (string | undefined)[] = [];
  readonly #byHash = new Map<string, number>();
  #free: number;

  constructor(total: number, blockSize: number) {
    this.total = total;
    this.blockSize = blockSize;
    this.#free = total;
    this.#refs = new Int32Array(total + 1);
    this.#next = Int32Array.from({ length: total + 1 }, (_, i) => (i + 1) % (total + 1));
    this.#previous = Int32Array.from({ length: total + 1 }, (_, i) => (i + total) % (total + 1));
  }

  get free(): number {
    return this.#free;
  }

  /** How many blocks hold this many tokens; the last one may not be full. */
  blocksFor(tokens: number): number {
    return Math.ceil(tokens / this.blockSize);
  }

  /** How many blocks this many tokens fill completely. */
  filledBy(tokens: number): number {
    return Math.floor(tokens / this.blockSize);
  }

  references(block: number): number {
    return this.#refs[block]!;
  }

  canAllocate(count: number): boolean {
    return count <= this.#free;
  }

  /** Takes the `count` blocks that have been free the longest and forgets their hashes; ask `canAllocate` first. */
  allocate(count: number): number[] {
    if (!this.canAllocate(count)) throw new RangeError(`${count} blocks asked for, ${this.#free} are free`);
    return Array.from({ length: count }, () => {
      const block = this.#next[0]!;
      this.#unlink(block);
      this.#forget(block);
      this.#refs[block] = 1;
      return block;
    });
  }

  /** Adds a reference to a block that is in use or was found by its hash. */
  share(block: number): void {
    if (this.#refs[block] === 0) this.#unlink(block);
    this.#refs[block] = this.#refs[block]! + 1;
  }

  /**
   * Returns one reference to each block; holes are skipped. Blocks that have no references left join the free queue in
   * the given order (the first is reused first), and those without a hash go to its front.
   */
  release(blocks: readonly number[]): void {
    for (const block of blocks) {
      if (block === NULL_BLOCK) continue;
      const refs = this.#refs[block]! - 1;
      if (refs < 0) throw new RangeError(`block ${block} was freed twice`);
      this.#refs[block] = refs;
      if (refs === 0) this.#link(block, this.#hashOf[block] === undefined);
    }
  }

  /** Publishes a block's content to the prefix cache. Of two blocks with the same hash, the first stays. */
  publish(block: number, hash: string): void {
    if (this.#hashOf[block] !== undefined || this.#byHash.has(hash)) return;
    this.#hashOf[block] = hash;
    this.#byHash.set(hash, block);
  }

  /** The longest run of leading hashes that are cached, as blocks; `share` them to use them. */
  lookUp(hashes: readonly string[]): number[] {
    const found: number[] = [];
    for (const hash of hashes) {
      const block = this.#byHash.get(hash);
      if (block === undefined) break;
      found.push(block);
    }
    return found;
  }

  #forget(block: number): void {
    const hash = this.#hashOf[block];
    if (hash === undefined) return;
    this.#byHash.delete(hash);
    this.#hashOf[block] = undefined;
  }

  #link(block: number, first: boolean): void {
    const after = first ? 0 : this.#previous[0]!;
    const before = first ? this.#next[0]! : 0;
    this.#next[after] = block;
    this.#previous[block] = after;
    this.#next[block] = before;
    this.#previous[before] = block;
    this.#free += 1;
  }

  #unlink(block: number): void {
    const after = this.#previous[block]!;
    const before = this.#next[block]!;
    this.#next[after] = before;
    this.#previous[before] = after;
    this.#free -= 1;
  }
}

/** Chained hashes of the full blocks of a prompt: equal hashes mean equal tokens up to the block's end. */
export function prefixHashes(tokenIds: readonly number[], blockSize: number): string[] {
  const hashes: string[] = [];
  let parent = '';
  for (let end = blockSize; end <= tokenIds.length; end += blockSize) {
    const tokens = Int32Array.from(tokenIds.slice(end - blockSize, end));
    parent = createHash('sha256').update(parent).update(tokens).digest('base64');
    hashes.push(parent);
  }
  return hashes;
}
