import { type Finished, FinishReason, type RequestStep, type Started } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { MeasuredGroups } from '../measure/measured-groups.ts';
import type { BadMessageReason } from '../observe/labels.ts';
import type { Metrics } from '../observe/metrics.ts';
import { ProbeRun } from '../request/probe.ts';
import type { RequestState } from '../request/request-state.ts';
import type { Introduction } from './hello.ts';

export interface ProbeDeskDeps {
  introduction: Introduction;
  requests: ReadonlyMap<number, RequestState>;
  metrics: Metrics;
  measured: MeasuredGroups;
}

/** The forks of one engine that are writing a probed answer, from their start to their end. */
export function createProbeDesk({ introduction, requests, metrics, measured }: ProbeDeskDeps) {
  const engine = introduction.hello.engineId;
  const { blockSize } = introduction.hello;
  /** undefined: a fork of a request that is not known; it is followed so that its messages are no errors. */
  const runs = new Map<number, ProbeRun | undefined>();
  let wantedSteps = 1;
  /** Probes that have said enough and were not stopped yet. */
  let settled: number[] = [];

  return {
    has: (handle: number): boolean => runs.has(handle),

    /** The most tokens a probe generates, as the engine was told. */
    expectTokens(tokens: number): void {
      wantedSteps = tokens;
    },

    /** false: the parent is not known, and the fork will be followed without use. */
    start(started: Started, parentHandle: number): boolean {
      const parent = requests.get(parentHandle);
      const { handle, computedTokens, evicted } = started;
      const readShare = parent?.profile.hits.share ?? 1;
      const apart = parent?.sample === undefined ? 0 : measured.all;
      runs.set(handle, parent && new ProbeRun(parentHandle, computedTokens, evicted, blockSize, readShare, apart));
      parent?.schedule.started(parent.tokens);
      return parent !== undefined;
    },

    /** Adds a fork's step; returns why it was dropped. */
    step(row: RequestStep): BadMessageReason | undefined {
      if (!runs.has(row.handle)) return 'unknown_handle';
      const run = runs.get(row.handle);
      if (run === undefined || row.masses.length === 0) return undefined;
      if (!run.add(row.masses, row.computedTokens, measured)) return 'probe_mass_length';
      const stopAfter = requests.get(run.parent)?.profile.probe.stopAfter ?? 0;
      // once only: an engine that cannot stop it lets it end by itself
      if (stopAfter > 0 && run.unchangedSteps === stopAfter) settled.push(row.handle);
      return undefined;
    },

    /** The probes that can be stopped since this was asked last: what they read stays the same. */
    takeSettled(): number[] {
      const handles = settled.filter((handle) => runs.has(handle));
      settled = [];
      return handles;
    },

    /**
     * false: no such fork. A probe that ended by itself counts with whatever it read. One that was given up counts from
     * half of its tokens on: with less, blocks that the rest of the answer reads would pass for looked at and unread.
     */
    finish(finished: Finished): boolean {
      if (!runs.has(finished.handle)) return false;
      const run = runs.get(finished.handle);
      runs.delete(finished.handle);
      metrics.probeTokens.inc({ engine }, finished.probeTokens);
      const parent = run && requests.get(run.parent);
      parent?.schedule.ended(finished.probeTokens);
      const complete =
        finished.reason === FinishReason.FINISH_REASON_STOP || finished.reason === FinishReason.FINISH_REASON_LENGTH;
      const useful = run !== undefined && run.steps >= (complete ? 1 : Math.max(1, Math.ceil(wantedSteps / 2)));
      if (useful) parent?.foldProbe(run);
      const used = useful && parent !== undefined;
      metrics.probes.inc({ engine, outcome: used ? (complete ? 'finished' : 'partial') : 'dropped' });
      return true;
    },
  };
}
