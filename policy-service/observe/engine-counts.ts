import type { Hello } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { RequestState } from '../request/request-state.ts';
import type { ShadowFinding } from '../request/shadow.ts';
import type { JUDGED, RequestLabels } from './counter.ts';
import { type BadMessageReason, type PlanOutcome, type ProbeOutcome, phaseLabel } from './labels.ts';
import type { Metrics } from './metrics.ts';

export type EngineCounts = ReturnType<typeof createEngineCounts>;

/** Counts what happens on the stream of one engine, under the labels of the engine and of its requests. */
export function createEngineCounts(metrics: Metrics, { engineId: engine, bytesPerBlock }: Hello) {
  const blockBytes = Number(bytesPerBlock);
  const labelsOf = ({ profile, policyName, modeLabel }: RequestState): RequestLabels => {
    return { engine, profile: profile.name, policy: policyName, mode: modeLabel };
  };

  const shadowLabelsOf = (request: RequestState) => {
    const judged: (typeof JUDGED)[number] = request.marksTokens ? 'tokens' : 'blocks';
    return { ...labelsOf(request), phase: phaseLabel(request.phase), judged };
  };

  return {
    dropped: (reason: BadMessageReason) => metrics.badMessages.inc({ reason }),
    step: () => metrics.steps.inc({ engine }),
    missedStep: () => metrics.missedSteps.inc({ engine }),
    decided: (milliseconds: number) => metrics.decisionSeconds.observe({ engine }, milliseconds / 1000),
    preempted: () => metrics.preemptions.inc({ engine }),
    plan: (outcome: PlanOutcome) => metrics.plans.inc({ engine, outcome }),
    rejected: (reason: string, blocks: number) => metrics.rejectedBlocks.inc({ engine, reason }, blocks),
    probe: (outcome: ProbeOutcome) => metrics.probes.inc({ engine, outcome }),
    probeTokens: (tokens: number) => metrics.probeTokens.inc({ engine }, tokens),

    started: (request: RequestState) => metrics.start('request', labelsOf(request)),

    measured(request: RequestState, shadow: ShadowFinding | undefined): void {
      metrics.measuredSteps.inc({ engine });
      if (shadow === undefined) return;
      const labels = shadowLabelsOf(request);
      metrics.shadowSteps.inc(labels);
      metrics.shadowRegretted.inc(labels, shadow.regretted);
      metrics.shadowMissedMass.inc(labels, shadow.missedMass);
    },

    shadowEvicted: (request: RequestState, blocks: number) =>
      metrics.shadowEvicted.inc(shadowLabelsOf(request), blocks),

    evicted(request: RequestState, blocks: number): void {
      const { profile, policyName: policy, phase } = request;
      const labels = { engine, profile: profile.name, policy, phase: phaseLabel(phase) };
      metrics.blocksEvicted.inc(labels, blocks);
      metrics.bytesFreed.inc(labels, blocks * blockBytes);
    },

    merged: ({ policyName: policy }: RequestState, merges: number) => metrics.merges.inc({ engine, policy }, merges),

    finished(request: RequestState, generatedTokens: number): void {
      const labels = labelsOf(request);
      metrics.finishedRequests.inc(labels);
      metrics.finishedTokens.inc(labels, generatedTokens);
      metrics.peakBlocks.inc(labels, request.peakResident);
      metrics.fullPeakBlocks.inc(labels, request.peakFull);
    },
  };
}
