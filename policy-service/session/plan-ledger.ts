import type { RequestPlan } from '../../proto/gen/crystalkv/v1/policy.ts';

/** What a plan asks of one request. */
export interface PlannedRequest {
  handle: number;
  epoch: number;
  /** Blocks that it is to lose, by eviction or by merging. */
  blocks: readonly number[];
  /** Blocks that it would lose in shadow mode. */
  shadowed: readonly number[];
  /** What the engine marked before was to be forgotten. */
  begins: boolean;
  probe: boolean;
}

/**
 * Plans without an answer yet. The engine answers in the order of sending, so an answer means that older plans are
 * lost.
 */
export class PlanLedger {
  #outstanding = new Map<bigint, PlannedRequest[]>();
  #next = 1n;

  /** The sequence number of the next plan. */
  get next(): bigint {
    return this.#next;
  }

  /** Takes the next sequence number. A plan that asks for nothing is not remembered. */
  issue(requests: readonly RequestPlan[]): bigint {
    const sequence = this.#next;
    this.#next += 1n;
    if (requests.length > 0) {
      const planned = requests.map(({ handle, epoch, evict, merges, shadow, probe }) => {
        const shadowed = shadow === undefined ? [] : lostBy(shadow);
        const begins = shadow?.begin ?? false;
        return { handle, epoch, blocks: lostBy({ evict, merges }), shadowed, begins, probe };
      });
      this.#outstanding.set(sequence, planned);
    }
    return sequence;
  }

  /**
   * Closes the plan `sequence`. `planned` is undefined when the plan was empty, unknown or answered before; `lost` are
   * older plans that the engine skipped and will not answer any more.
   */
  settle(sequence: bigint): { planned: PlannedRequest[] | undefined; lost: PlannedRequest[][] } {
    const lost: PlannedRequest[][] = [];
    for (const [other, planned] of this.#outstanding) {
      if (other >= sequence) break;
      lost.push(planned);
      this.#outstanding.delete(other);
    }
    const planned = this.#outstanding.get(sequence);
    this.#outstanding.delete(sequence);
    return { planned, lost };
  }
}

function lostBy({ evict, merges }: Pick<RequestPlan, 'evict' | 'merges'>): number[] {
  return [...evict, ...merges.flatMap(({ from }) => from)];
}
