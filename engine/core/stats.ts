import { noneOf } from '../../common/protocol.ts';
import { type EngineStats, FINISH_REASONS } from '../types.ts';
import type { PlanApplier } from './plans.ts';
import type { Probes } from './probes.ts';
import type { Reporter } from './reporter.ts';
import type { Scheduler } from './scheduler.ts';

/** What the core counts itself; its parts count what they do. */
export class Totals {
  step = 0;
  promptTokens = 0;
  generatedTokens = 0;
  measuredRows = 0;
  missedSteps = 0;
  readonly finished = noneOf(FINISH_REASONS);
}

export interface CountingParts {
  totals: Totals;
  scheduler: Scheduler;
  probes: Probes;
  plans: PlanApplier;
  reporter: Reporter;
}

/** A copy of all counts, as they are now. */
export function statsOf({ totals, scheduler, probes, plans, reporter }: CountingParts): EngineStats {
  const { freeBlocks, totalBlocks, waiting, running } = scheduler.poolState;
  const { missedSteps, finished, ...counts } = totals;
  return {
    ...counts,
    ...scheduler.counters,
    running,
    waiting,
    freeBlocks,
    totalBlocks,
    probes: probes.started,
    probeTokens: probes.tokens,
    evictedBlocks: plans.evictedBlocks,
    merges: plans.merges,
    finished: { ...finished },
    policy: {
      connected: reporter.attached,
      missedSteps,
      plans: plans.applied,
      rejected: { ...plans.rejected },
      // counted where reports are sent
      droppedReports: 0,
    },
  };
}
