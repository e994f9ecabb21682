import type { EvictionMode } from '../../common/cache-options.ts';
import { Mode, Phase, Reject } from '../../proto/gen/crystalkv/v1/policy.ts';

/** Metric label of a phase. */
export function phaseLabel(phase: Phase): string {
  if (phase === Phase.PHASE_PREFILL) return 'prefill';
  if (phase === Phase.PHASE_THINKING) return 'thinking';
  if (phase === Phase.PHASE_ANSWER) return 'answer';
  return 'unknown';
}

const REJECT_LABELS: ReadonlyMap<number, string> = new Map([
  [Reject.REJECT_UNKNOWN_REQUEST, 'unknown_request'],
  [Reject.REJECT_STALE_EPOCH, 'stale_epoch'],
  [Reject.REJECT_PROTECTED, 'protected'],
  [Reject.REJECT_OUT_OF_RANGE, 'out_of_range'],
  [Reject.REJECT_FUTURE_STEP, 'future_step'],
  [Reject.REJECT_NOT_RESIDENT, 'not_resident'],
  [Reject.REJECT_SHARED, 'shared'],
  [Reject.REJECT_DISABLED, 'disabled'],
  [Reject.REJECT_INVALID_MERGE, 'invalid_merge'],
]);

export const REJECT_REASONS: readonly string[] = [...REJECT_LABELS.values()];

/** What became of a plan. `partial`: some of its blocks; `lost`: the engine never answered it. */
export const PLAN_OUTCOMES = ['applied', 'partial', 'rejected', 'stale', 'lost'] as const;
export type PlanOutcome = (typeof PLAN_OUTCOMES)[number];

/** What became of a probe that was asked for. `partial`: given up, but used. */
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
  'tokens_went_back',
  'step_out_of_order',
  'mass_length',
  'mass_code',
  'probe_mass_length',
  'internal_error',
] as const;
export type BadMessageReason = (typeof BAD_MESSAGE_REASONS)[number];

/** Metric label of a reason; reasons of newer engines share one. */
export function rejectLabel(reason: Reject): string {
  return REJECT_LABELS.get(reason) ?? 'unknown';
}

const PROTO_MODES: Readonly<Record<EvictionMode, Mode>> = {
  enforce: Mode.MODE_ENFORCE,
  shadow: Mode.MODE_SHADOW,
  off: Mode.MODE_OFF,
};

export function protoMode(mode: EvictionMode): Mode {
  return PROTO_MODES[mode];
}

/** Metric label of a mode: canaries are apart from requests that are shadowed because they or their profile say so. */
export type ModeLabel = EvictionMode | 'canary';

/** undefined: the request left it to the profile. */
export function evictionMode(mode: Mode): EvictionMode | undefined {
  if (mode === Mode.MODE_ENFORCE) return 'enforce';
  if (mode === Mode.MODE_SHADOW) return 'shadow';
  if (mode === Mode.MODE_OFF) return 'off';
  return undefined;
}
