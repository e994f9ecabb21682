import type { Phase, ShadowPhase, ShadowReads } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { BlockTable } from './block-table.ts';

/** What one measured step says of what shadow mode would have taken away before it. */
export interface ShadowFinding {
  /** In blocks. Of whole blocks: those that it read. Of tokens: those that it read, as far as they fill blocks. */
  regretted: number;
  /** Their share of its attention, read or not, in [0, 1]. */
  missedMass: number;
}

/** Beyond 1 by rounding only. */
const MOST_MASS = 1.001;

/**
 * Finds out what the evictions and merges of one request in shadow mode would have cost. The full cache is still there,
 * so it is exact. What is regretted counts at its first read only.
 */
export class ShadowCosts {
  #regretted = new Set<number>();
  #phases = new Map<Phase, { steps: number; missedMass: number; regretted: number }>();

  /**
   * Of whole blocks, by their masses. `hits` and the columns of `mass` from `from` on belong to `table.live`; `mass`
   * covers all resident blocks. undefined: the step holds no mass.
   */
  ofBlocks(
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

  /** Takes a finding of a phase in. */
  add(phase: Phase, { missedMass, regretted }: ShadowFinding): void {
    const sums = this.#phases.get(phase) ?? { steps: 0, missedMass: 0, regretted: 0 };
    sums.steps += 1;
    sums.missedMass += missedMass;
    sums.regretted += regretted;
    this.#phases.set(phase, sums);
  }

  /** All findings so far. */
  get phases(): ShadowPhase[] {
    return [...this.#phases].map(([phase, { steps, missedMass, regretted }]) => {
      return { phase, steps, missedMass: missedMass / steps, regrettedBlocks: regretted };
    });
  }

  /** What would have been taken away is there again. */
  reset(): void {
    this.#regretted.clear();
  }
}

/**
 * Of tokens, by what their engine says. `slots`: tokens of a block, in all measured head groups. undefined: it makes no
 * sense.
 */
export function ofTokens({ missedMass, regrettedTokens }: ShadowReads, slots: number): ShadowFinding | undefined {
  if (!(missedMass >= 0 && missedMass <= MOST_MASS)) return undefined;
  return { missedMass: Math.min(1, missedMass), regretted: regrettedTokens / slots };
}
