import type { Plan, RejectedBlocks, RequestAck, RequestPlan } from '../../proto/gen/crystalkv/v1/policy.ts';
import { ProbeAnswer, Reject } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { RejectReason } from '../types.ts';
import type { BlockPool } from './block-pool.ts';
import { evict } from './evict.ts';
import type { CoreOptions } from './options.ts';
import type { Sequence } from './sequence.ts';

const REJECTS: Record<RejectReason, Reject> = {
  unknown_request: Reject.REJECT_UNKNOWN_REQUEST,
  stale_epoch: Reject.REJECT_STALE_EPOCH,
  protected: Reject.REJECT_PROTECTED,
  out_of_range: Reject.REJECT_OUT_OF_RANGE,
  future_step: Reject.REJECT_FUTURE_STEP,
  not_resident: Reject.REJECT_NOT_RESIDENT,
  shared: Reject.REJECT_SHARED,
  disabled: Reject.REJECT_DISABLED,
};

export const NO_REJECTS: Record<RejectReason, number> = Object.freeze({
  unknown_request: 0,
  stale_epoch: 0,
  protected: 0,
  out_of_range: 0,
  future_step: 0,
  not_resident: 0,
  shared: 0,
  disabled: 0,
});

/** What applying plans needs of the engine. */
export interface PlanTarget {
  options: CoreOptions;
  pool: BlockPool;
  step(): number;
  find(handle: number): Sequence | undefined;
  startProbe(sequence: Sequence): ProbeAnswer;
}

/** Applies plans between two steps. Nothing in a plan is trusted; what was refused is counted by reason. */
export class PlanApplier {
  readonly #target: PlanTarget;
  readonly rejected: Record<RejectReason, number> = { ...NO_REJECTS };
  applied = 0;
  evictedBlocks = 0;

  constructor(target: PlanTarget) {
    this.#target = target;
  }

  /** @returns what to acknowledge, one entry for each of the plan's requests */
  apply(plan: Plan): RequestAck[] {
    this.applied += 1;
    const future = plan.basedOnStep > BigInt(this.#target.step());
    return plan.requests.map((request) => (future ? this.#refuse(request, 'future_step') : this.#applyOne(request)));
  }

  #applyOne(plan: RequestPlan): RequestAck {
    const sequence = this.#target.find(plan.handle);
    if (sequence === undefined || sequence.fork !== undefined) return this.#refuse(plan, 'unknown_request');
    if (sequence.epoch !== plan.epoch) return this.#refuse(plan, 'stale_epoch');
    const { options, pool } = this.#target;
    if (!options.enabled || sequence.request.cache.mode === 'off') return this.#refuse(plan, 'disabled');
    const { evicted, rejected } = evict(sequence, plan.evict, pool, options.blockSize, options.protection);
    this.evictedBlocks += evicted.length;
    const probe = plan.probe ? this.#target.startProbe(sequence) : ProbeAnswer.PROBE_ANSWER_UNSPECIFIED;
    const refusals = [...rejected].map(([reason, blocks]): RejectedBlocks => {
      this.rejected[reason] += blocks.length;
      return { reason: REJECTS[reason], blocks };
    });
    return { handle: plan.handle, epoch: plan.epoch, evicted, rejected: refusals, probe };
  }

  #refuse(plan: RequestPlan, reason: RejectReason): RequestAck {
    this.rejected[reason] += Math.max(1, plan.evict.length);
    return {
      handle: plan.handle,
      epoch: plan.epoch,
      evicted: [],
      rejected: [{ reason: REJECTS[reason], blocks: [] }],
      probe: ProbeAnswer.PROBE_ANSWER_UNSPECIFIED,
    };
  }
}
