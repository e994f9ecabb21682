import type { RequestPlan } from '../../proto/gen/crystalkv/v1/policy.ts';

/** What a plan asked of one request. */
export interface Asked {
  handle: number;
  epoch: number;
  /** Blocks that it was to lose, by eviction or by merging. */
  blocks: readonly number[];
  probe: boolean;
}

/** Plans that are under way. The engine answers in the order in which they were sent, so an answer dates the others. */
export class PlanLedger {
  #outstanding = new Map<bigint, Asked[]>();
  #next = 1n;

  /** The sequence that the next plan gets. */
  get next(): bigint {
    return this.#next;
  }

  /** Takes the next sequence. A plan that asks for nothing is not remembered. */
  issue(requests: readonly RequestPlan[]): bigint {
    const sequence = this.#next;
    this.#next += 1n;
    if (requests.length > 0) {
      const asked = requests.map(({ handle, epoch, evict, merges, probe }) => {
        return { handle, epoch, blocks: [...evict, ...merges.flatMap(({ from }) => from)], probe };
      });
      this.#outstanding.set(sequence, asked);
    }
    return sequence;
  }

  /**
   * Closes the plan `sequence`. `asked` is undefined when it was empty, unknown, or answered before; `lost` are older
   * plans that the engine passed over, and that it will not answer any more.
   */
  settle(sequence: bigint): { asked: Asked[] | undefined; lost: Asked[][] } {
    const lost: Asked[][] = [];
    for (const [other, asked] of this.#outstanding) {
      if (other >= sequence) break;
      lost.push(asked);
      this.#outstanding.delete(other);
    }
    const asked = this.#outstanding.get(sequence);
    this.#outstanding.delete(sequence);
    return { asked, lost };
  }
}
