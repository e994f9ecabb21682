import type { BlockTable } from './block-table.ts';

/**
 * What shadow mode found for one request. The full cache is still there, so both figures are exact: how many of the
 * blocks that would have been evicted a later step read (once each), and how much attention they received.
 */
export class ShadowTally {
  /** Blocks that would have been evicted. */
  evicted = 0;
  /** Those of them that a later measured step hit. */
  regretted = 0;
  /** Sum over measured steps of the share of attention on blocks that would have been gone. */
  missedMass = 0;
  steps = 0;
  #regrettedBlocks = new Set<number>();

  /** `hits` and the columns of `mass` from `from` on belong to `table.live`; `mass` covers all resident blocks. */
  observe(table: BlockTable, hits: Uint8Array, evictable: number, mass: Float64Array, from: number): void {
    let total = 0;
    for (let column = 0; column < table.resident; column += 1) total += mass[column]!;
    if (total <= 0) return;
    let missed = 0;
    for (let i = 0; i < evictable; i += 1) {
      const block = table.live[i]!;
      if (!table.isVirtual(block)) continue;
      missed += mass[from + i]!;
      if (hits[i] === 1 && !this.#regrettedBlocks.has(block)) {
        this.#regrettedBlocks.add(block);
        this.regretted += 1;
      }
    }
    this.missedMass += missed / total;
    this.steps += 1;
  }

  /** The cache was thrown away, and with it what would have been evicted; the figures stay. */
  reset(): void {
    this.#regrettedBlocks.clear();
  }
}
