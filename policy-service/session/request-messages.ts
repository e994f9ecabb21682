import {
  type Finished,
  FinishReason,
  type Preempted,
  type RequestStep,
  type Started,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import type { Calibrator } from '../calibration/calibrator.ts';
import type { Settings } from '../config.ts';
import type { MeasuredGroups } from '../measure/measured-groups.ts';
import type { EngineCounts } from '../observe/engine-counts.ts';
import type { BadMessageReason } from '../observe/labels.ts';
import { governanceOf } from '../request/governance.ts';
import { RequestState } from '../request/request-state.ts';
import { takeMasses } from '../request/take-masses.ts';
import type { NegotiatedHello } from './hello.ts';
import type { RunningProbes } from './running-probes.ts';

export interface RequestReaderDeps {
  negotiated: NegotiatedHello;
  requests: Map<number, RequestState>;
  probes: RunningProbes;
  calibrator: Calibrator;
  measured: MeasuredGroups;
  settings: { current: Settings };
  counts: EngineCounts;
  onUnknownProfile(name: string): void;
  /** Called for each request in shadow mode whose merges its engine cannot judge. */
  onMergesUnjudged(request: RequestState): void;
  /** Called when the engine says that a request has ended, with its last state, which is kept nowhere. */
  onFinished(request: RequestState): void;
}

/** A request that was aborted says nothing of how long its answer would have been. */
const COMPLETE: ReadonlySet<FinishReason> = new Set([
  FinishReason.FINISH_REASON_STOP,
  FinishReason.FINISH_REASON_LENGTH,
]);

/**
 * Takes in what an engine says of its requests, from their start to their end. No request can hold more blocks than its
 * engine has, whatever it shares with others; who says so is not believed. Each method returns why the message, or
 * the part of one, was dropped.
 */
export function createRequestReader(deps: RequestReaderDeps) {
  const { negotiated, requests, probes, calibrator, measured, settings, counts } = deps;
  const { hello } = negotiated;
  const { blockSize, sinkTokens, recentTokens, headGroups } = hello;

  const preempt = (state: RequestState, epoch: number) => {
    state.preempt(epoch);
    counts.preempted();
  };

  return {
    /** `cold`: met in a snapshot. */
    started(started: Started, cold: boolean): BadMessageReason | undefined {
      const { handle, parentHandle, options, promptTokens, computedTokens } = started;
      if (requests.has(handle) || probes.has(handle)) return 'duplicate_handle';
      const { maxRequestTokens } = settings.current.limits;
      if (promptTokens > maxRequestTokens || computedTokens > maxRequestTokens) return 'too_long';
      const blocks = Math.ceil(computedTokens / blockSize);
      const holes = new Set(started.evicted.filter((block) => block < blocks)).size;
      if (blocks - holes > hello.poolBlocks) return 'beyond_pool';
      if (parentHandle !== undefined) return probes.start(started, parentHandle) ? undefined : 'unknown_parent';
      const calibrates = !cold && calibrator.wantsRequest;
      const governed = { options, canaryKey: canaryKeyOf(started), calibrates };
      const state = new RequestState(
        {
          handle,
          crystalkvId: started.crystalkvId,
          choiceIndex: started.choiceIndex,
          promptTokens,
          epoch: started.epoch,
          cold,
          blockSize,
          sinkTokens,
          recentTokens,
          headGroups,
          measured,
          probeSuffixTokens: negotiated.probeSuffixTokens,
          statistics: negotiated.statistics,
          marksMerges: negotiated.marksMerges,
        },
        governanceOf(governed, settings.current, deps.onUnknownProfile),
        options,
      );
      state.table.advance(computedTokens);
      state.table.markHoles(started.evicted);
      requests.set(handle, state);
      calibrator.watch(state);
      counts.started(state);
      if (state.mergesUnjudged) deps.onMergesUnjudged(state);
      return undefined;
    },

    /** Applies changed settings. */
    govern(): void {
      for (const state of requests.values()) {
        const { options, start, sample } = state;
        const governed = { options, canaryKey: canaryKeyOf(start), calibrates: sample !== undefined };
        state.govern(governanceOf(governed, settings.current));
        if (state.mergesUnjudged) deps.onMergesUnjudged(state);
      }
    },

    stepped(step: RequestStep): BadMessageReason | undefined {
      const state = requests.get(step.handle);
      if (state === undefined) return probes.step(step);
      if (step.epoch < state.epoch) return 'stale_epoch';
      if (step.computedTokens > settings.current.limits.maxRequestTokens) return 'too_long';
      // A preemption takes the holes away.
      const holes = step.epoch > state.epoch ? 0 : state.table.holes;
      if (Math.ceil(step.computedTokens / blockSize) - holes > hello.poolBlocks) return 'beyond_pool';
      // The report of the preemption was lost; the epoch says it as well.
      if (step.epoch > state.epoch) preempt(state, step.epoch);
      if (step.computedTokens < state.tokens) return 'tokens_went_back';
      state.advance(step.computedTokens, step.phase, step.segmentStarts);
      const taken = step.masses.length > 0 ? takeMasses(state, step.masses, step.shadow) : undefined;
      if (taken?.kind === 'learned') counts.measured(state, taken.shadow);
      state.admit();
      return taken?.kind === 'dropped' ? taken.reason : undefined;
    },

    preempted({ handle, epoch }: Preempted): BadMessageReason | undefined {
      const state = requests.get(handle);
      if (state === undefined) return probes.has(handle) ? undefined : 'unknown_handle';
      if (epoch <= state.epoch) return 'stale_epoch';
      preempt(state, epoch);
      return undefined;
    },

    /** The report of its end was lost: nothing is known of how it ended. */
    forget(handle: number): void {
      const state = requests.get(handle);
      if (state === undefined) return;
      requests.delete(handle);
      calibrator.ended(state, false);
    },

    finished(finished: Finished): BadMessageReason | undefined {
      const state = requests.get(finished.handle);
      if (state === undefined) return probes.finish(finished) ? undefined : 'unknown_handle';
      requests.delete(finished.handle);
      const complete = COMPLETE.has(finished.reason);
      calibrator.ended(state, complete);
      if (complete) counts.finished(state, finished.generatedTokens);
      deps.onFinished(state);
      return undefined;
    },
  };
}

/** Requests that did not come through a gateway are told apart by their handles. */
function canaryKeyOf({ crystalkvId, handle }: { crystalkvId: string; handle: number }): string {
  return crystalkvId === '' ? `handle ${handle}` : crystalkvId;
}
