import type { BlockTable } from './block-table.ts';

/** What one measured step says of the blocks that shadow mode would have evicted before it. */
export interface ShadowFinding {
  /** Blocks that it read, each counted at its first read. */
  regretted: number;
  /** Their share of its attention, read or not, in [0, 1]. */
  missedMass: number;
}

/** Finds out what shadowed evictions of one request would have cost. The full cache is still there, so it is exact. */
export class ShadowReads {
  #regretted = new Set<number>();

  /**
   * `hits` and the columns of `mass` from `from` on belong to `table.live`; `mass` covers all resident blocks.
   * undefined: the step holds no mass.
   */
  observe(
    table: BlockTable,
    hits: Uint8Array,
    evictable: number,
    mass: Float64Array,
    from: number,
  ): ShadowFinding | undefined {
    let total = 0;
    for (let column = 0; column < table.resident; column += 1) total += mass[column]!;
    if (total <= 0) return undefined;
    let missed = 0;
    let regretted = 0;
    for (let i = 0; i < evictable; i += 1) {
      const block = table.live[i]!;
      if (!table.isVirtual(block)) continue;
      missed += mass[from + i]!;
      if (hits[i] === 1 && !this.#regretted.has(block)) {
        this.#regretted.add(block);
        regretted += 1;
      }
    }
    return { regretted, missedMass: missed / total };
  }

  /** The cache was dropped, and with it what would have been evicted. */
  reset(): void {
    this.#regretted.clear();
  }
}
