import type { PoolState, RequestPlan, ShadowPlan } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { Settings } from '../config.ts';
import type { Controller, Pool } from '../controllers/controller.ts';
import { createController } from '../controllers/registry.ts';
import { WARM_UP_TOKENS } from '../measure/measure-rate.ts';
import type { RequestState } from '../request/request-state.ts';
import type { NegotiatedHello } from '../session/hello.ts';
import { untouchedBlocks } from './answer-release.ts';
import { planMerge } from './merge-plan.ts';

export interface DeciderDeps {
  negotiated: NegotiatedHello;
  requests: ReadonlyMap<number, RequestState>;
  settings: { current: Settings };
  /** Whether some request is a calibration sample: all are measured as often as if they would lose blocks. */
  isCalibrating?(): boolean;
}

export interface Decision {
  /** What the engine is asked for; blocks in it are pending from now on. */
  plans: RequestPlan[];
  /** How many blocks shadow mode would have asked for, of requests whose engine marks nothing. */
  shadowed: Map<RequestState, number>;
  /** Whether some request may lose blocks within its next tokens, or lose them in shadow mode. */
  expected: boolean;
}

type PlanFor = (state: RequestState) => RequestPlan;

interface Group {
  controller: Controller;
  members: RequestState[];
  quotas: number[];
}

/** Decides what to ask of one engine after a step: controllers say how many blocks go, policies say which. */
export function createDecider({ negotiated, requests, settings, isCalibrating }: DeciderDeps) {
  const { hello } = negotiated;
  const groups = new Map<string, Group>();
  const pool: Pool = { freeBlocks: 0, totalBlocks: 0, waiting: 0, promisedBlocks: 0 };

  const groupOf = (state: RequestState): Group => {
    let group = groups.get(state.group);
    if (group === undefined) {
      group = { controller: createController(state.controller), members: [], quotas: [] };
      groups.set(state.group, group);
    }
    return group;
  };

  const wantsProbe = (state: RequestState, controller: Controller): boolean => {
    if (!negotiated.canProbe || !state.definition.needsProbe || !state.isThinking) return false;
    const options = state.profile.probe;
    if (!state.schedule.isDue(state.progress, options)) return false;
    // A probe takes about one step for each of its tokens, and should end before the first block has to go.
    const ahead = options.maxTokens + negotiated.probeSuffixTokens + hello.blockSize;
    return state.sample !== undefined || controller.expectsEviction(state, pool, ahead);
  };

  /** No block that a probe reads can be merged: what has to go waits until the probe has ended. */
  const isHeld = (state: RequestState) => state.merges && state.schedule.isBusy(state.tokens, state.profile.probe);

  /** What is asked of an engine that marks tokens. */
  const shadowPlanOf = (state: RequestState, planFor: PlanFor): ShadowPlan => {
    const plan = planFor(state);
    plan.shadow ??= { begin: !state.marksBegun, evict: [], merges: [], readShare: state.tokenReadShare };
    state.marksBegun = true;
    return plan.shadow;
  };

  /** Plans evictions, or in shadow mode only records them. */
  const planEviction = (
    state: RequestState,
    blocks: number[],
    planFor: PlanFor,
    shadowed: Map<RequestState, number>,
  ) => {
    if (blocks.length === 0) return;
    if (state.mode === 'shadow') {
      for (const block of blocks) state.table.markVirtual(block);
      if (state.marksTokens) shadowPlanOf(state, planFor).evict.push(...blocks);
      else shadowed.set(state, (shadowed.get(state) ?? 0) + blocks.length);
    } else {
      for (const block of blocks) state.table.markPending(block);
      pool.promisedBlocks += blocks.length;
      const plan = planFor(state);
      plan.evict = plan.evict.concat(blocks).sort((a, b) => a - b);
    }
  };

  /** Once, when a request begins to answer and blocks are scarce, for it or for all. */
  const releaseAtAnswer = (
    state: RequestState,
    controller: Controller,
    planFor: PlanFor,
    shadowed: Map<RequestState, number>,
  ) => {
    if (state.answerReleased || !state.isAnswering || !state.profile.answerRelease) return;
    if (state.table.gone === 0 && !controller.expectsEviction(state, pool, 0)) return;
    if (state.merges) return;
    state.answerReleased = true;
    planEviction(state, untouchedBlocks(state), planFor, shadowed);
  };

  const planGroup = (group: Group, planFor: PlanFor, shadowed: Map<RequestState, number>) => {
    const { controller, members, quotas } = group;
    // For requests that are shadowed together, what they would have lost is free. Canaries free nothing for the others.
    let virtual = 0;
    for (const { mode, canary, table } of members) if (mode === 'shadow' && !canary) virtual += table.virtual;
    pool.promisedBlocks += virtual;
    controller.quotas(members, pool, quotas);
    pool.promisedBlocks -= virtual;
    for (let i = 0; i < members.length; i += 1) {
      const quota = quotas[i]!;
      if (quota <= 0) continue;
      const state = members[i]!;
      const merge = state.merges ? planMerge(state, quota) : undefined;
      if (merge === undefined) planEviction(state, state.ranking.leastValuable(quota), planFor, shadowed);
      else if (state.mode === 'shadow') {
        for (const block of merge.from) state.table.markVirtual(block);
        shadowPlanOf(state, planFor).merges.push(merge);
      } else {
        for (const block of merge.from) state.table.markPending(block);
        pool.promisedBlocks += merge.from.length;
        planFor(state).merges = [merge];
      }
    }
  };

  return {
    /** Settings have changed: controllers start over. */
    forget(): void {
      groups.clear();
    },

    decide(state: PoolState): Decision {
      const plans: RequestPlan[] = [];
      const shadowed = new Map<RequestState, number>();
      let expected = isCalibrating?.() ?? false;
      if (!settings.current.enabled || !negotiated.canEvict) return { plans, shadowed, expected };
      pool.freeBlocks = state.freeBlocks;
      pool.totalBlocks = state.totalBlocks;
      pool.waiting = state.waiting;
      pool.promisedBlocks = 0;
      for (const group of groups.values()) group.members.length = 0;
      const entries = new Map<number, RequestPlan>();
      const planFor: PlanFor = ({ handle, epoch }) => {
        let entry = entries.get(handle);
        if (entry === undefined) {
          entry = { handle, epoch, evict: [], probe: false, releaseThinking: false, merges: [] };
          entries.set(handle, entry);
          plans.push(entry);
        }
        return entry;
      };
      for (const request of requests.values()) {
        pool.promisedBlocks += request.table.pending;
        if (request.mode === 'off') continue;
        if (request.profile.releaseThinking && !request.releaseAsked) {
          planFor(request).releaseThinking = true;
          request.releaseAsked = true;
        }
        if (!request.definition.evicts) continue;
        const group = groupOf(request);
        // a merge goes by what the engine itself keeps of every token; what it would cost is measured
        const measures = !request.merges || request.mode === 'shadow';
        expected ||= measures && group.controller.expectsEviction(request, pool, WARM_UP_TOKENS);
        if (!request.cold && request.tokens >= request.backOffUntil && !isHeld(request)) {
          releaseAtAnswer(request, group.controller, planFor, shadowed);
          group.members.push(request);
        }
        if (!wantsProbe(request, group.controller)) continue;
        request.schedule.asked(request.progress);
        planFor(request).probe = true;
      }
      for (const group of groups.values()) if (group.members.length > 0) planGroup(group, planFor, shadowed);
      return { plans, shadowed, expected };
    },
  };
}
