import { type EvictionMode, PHASES, REJECTS } from '../../common/protocol.ts';
import type { Phase, Reject } from '../../proto/gen/crystalkv/v1/policy.ts';

/** Metric label of a phase; phases of newer engines share one. */
export function phaseLabel(phase: Phase): string {
  return PHASES.word(phase) ?? 'unknown';
}

/** Metric label of a reason; reasons of newer engines share one. */
export function rejectLabel(reason: Reject): string {
  return REJECTS.word(reason) ?? 'unknown';
}

/** What became of a plan. `partial`: some of its blocks; `lost`: the engine never answered it. */
export const PLAN_OUTCOMES = ['applied', 'partial', 'rejected', 'stale', 'lost'] as const;
export type PlanOutcome = (typeof PLAN_OUTCOMES)[number];

/** What became of a probe that was asked for. `partial`: aborted, but used. */
export const PROBE_OUTCOMES = ['finished', 'partial', 'dropped', 'no_room', 'unsupported', 'unanswered'] as const;
export type ProbeOutcome = (typeof PROBE_OUTCOMES)[number];

/** Why a message, or a part of one, was dropped. */
export const BAD_MESSAGE_REASONS = [
  'before_hello',
  'second_hello',
  'late_snapshot',
  'undecodable',
  'duplicate_handle',
  'unknown_handle',
  'unknown_parent',
  'unknown_plan',
  'stale_epoch',
  'too_long',
  'beyond_pool',
  'tokens_went_back',
  'step_out_of_order',
  'mass_length',
  'mass_code',
  'shadow_reads',
  'probe_mass_length',
  'internal_error',
] as const;
export type BadMessageReason = (typeof BAD_MESSAGE_REASONS)[number];

/** Metric label of a mode: canaries are apart from requests that are shadowed because they or their profile say so. */
export type ModeLabel = EvictionMode | 'canary';
