import { noneOf, REJECTS, type RejectReason } from '../../common/protocol.ts';
import type {
  HeldTokens,
  KeepRule,
  Merge,
  Plan,
  RejectedBlocks,
  RequestAck,
  RequestPlan,
  ShadowPlan,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import { ProbeAnswer } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { MergeBlocks } from '../model/cache-layout.ts';
import type { ShadowCache } from '../model/shadow-cache.ts';
import type { StepModel } from '../model/step-model.ts';
import { askAgain } from './ask.ts';
import type { BlockPool } from './block-pool.ts';
import { evict, type Rejected, reject, release } from './evict.ts';
import { blocksOf, objections } from './merge.ts';
import type { CoreOptions } from './options.ts';
import type { Sequence } from './sequence.ts';
import { shadow } from './shadow.ts';

/** The parts of the engine that plans are applied to. */
export interface PlanTarget {
  options: CoreOptions;
  pool: BlockPool;
  step(): number;
  find(handle: number): Sequence | undefined;
  startProbe(sequence: Sequence): ProbeAnswer;
  /** Moves tokens between blocks of the pool. */
  merge(blocks: MergeBlocks, rule: KeepRule | undefined): void;
  /** Whether the model can follow the rule of a merge. */
  canFollow(rule: KeepRule): boolean;
  ask: StepModel['ask'];
  /** What a sequence has in memory; undefined: nobody asked, or it cannot be told. */
  held(sequence: Sequence): HeldTokens | undefined;
  /** For a sequence of which nothing is marked yet. */
  shadowCache(): ShadowCache;
}

/** Applies plans between steps. Nothing in a plan is trusted; what is refused is counted by reason. */
export class PlanApplier {
  readonly #target: PlanTarget;
  readonly rejected = noneOf(REJECTS.words);
  applied = 0;
  /** Blocks that became holes, including those that merges freed. */
  evictedBlocks = 0;
  merges = 0;

  constructor(target: PlanTarget) {
    this.#target = target;
  }

  /** @returns the acknowledgement, with one entry per request of the plan */
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
    const { evicted, rejected } = evict(sequence, plan.evict, pool, options.protection);
    const merged = plan.merges.filter((merge) => this.#merge(sequence, merge, rejected));
    for (const { from } of merged) evicted.push(...from);
    evicted.sort((a, b) => a - b);
    this.evictedBlocks += evicted.length;
    // marks say what a whole cache would have lost
    if (evicted.length > 0) sequence.shadow = undefined;
    const shadowEvicted = plan.shadow === undefined ? [] : this.#shadow(sequence, plan.shadow, rejected);
    const probe = plan.probe ? this.#target.startProbe(sequence) : ProbeAnswer.PROBE_ANSWER_UNSPECIFIED;
    const refusals = [...rejected].map(([reason, blocks]): RejectedBlocks => {
      this.rejected[reason] += blocks.length;
      return { reason: REJECTS.values[reason], blocks };
    });
    const told = merged.map(({ into, from }) => ({ into, from, rule: undefined }));
    const held = evicted.length === 0 ? undefined : this.#target.held(sequence);
    return {
      ...{ handle: plan.handle, epoch: plan.epoch, evicted, rejected: refusals, probe, merged: told, shadowEvicted },
      ...(held === undefined ? {} : { held }),
    };
  }

  #shadow(sequence: Sequence, plan: ShadowPlan, rejected: Rejected): number[] {
    const { options, pool, shadowCache, canFollow, ask } = this.#target;
    const { protection } = options;
    const follows = (rule: KeepRule | undefined) => rule === undefined || canFollow(rule);
    return shadow(sequence, plan, { pool, protection, shadowCache, canFollow: follows, ask }, rejected);
  }

  /** @returns whether it was carried out; if not, `rejected` says why */
  #merge(sequence: Sequence, merge: Merge, rejected: Rejected): boolean {
    const { options, pool } = this.#target;
    const against = objections(sequence, merge, pool, options.protection);
    if (merge.rule !== undefined && !this.#target.canFollow(merge.rule)) against.set('unknown_rule', [...merge.from]);
    for (const [reason, blocks] of against) for (const block of blocks) reject(rejected, reason, block);
    if (against.size > 0) return false;
    askAgain(sequence, merge, pool, this.#target);
    this.#target.merge(blocksOf(sequence, merge, pool), merge.rule);
    release(sequence, merge.from, pool);
    this.merges += 1;
    return true;
  }

  #refuse(plan: RequestPlan, reason: RejectReason): RequestAck {
    const asked = [plan, plan.shadow].reduce(
      (sum, part) => sum + (part?.evict.length ?? 0) + (part?.merges ?? []).reduce((n, { from }) => n + from.length, 0),
      0,
    );
    this.rejected[reason] += Math.max(1, asked);
    return {
      handle: plan.handle,
      epoch: plan.epoch,
      evicted: [],
      rejected: [{ reason: REJECTS.values[reason], blocks: [] }],
      probe: ProbeAnswer.PROBE_ANSWER_UNSPECIFIED,
      merged: [],
      shadowEvicted: [],
    };
  }
}
