import { backoffMs, jittered } from '../../common/time.ts';
import type { BudgetSettings, RetryBudget } from './budget.ts';
import type { FailureReason } from './failure.ts';

/** Statuses by which a server says that it did not do the work: overload, or nobody behind it. */
const STATUSES = [408, 429, 502, 503, 504] as const;
/** A slow backend is not one of them: it may be at work, and the next would only be slow as well. */
const CONNECTION = ['connect', 'connect_timeout', 'reset'] as const satisfies readonly FailureReason[];

/** Why there was another attempt; a metric label. */
export const RETRY_REASONS = [...CONNECTION, ...STATUSES.map((status) => `status_${status}` as const)] as const;
export type RetryReason = (typeof RETRY_REASONS)[number];

/** Why there was none, though there could have been; a metric label. */
export const DENIED_REASONS = ['budget', 'deadline', 'retry_after'] as const;
export type DeniedReason = (typeof DENIED_REASONS)[number];

export const SAME_BACKEND = ['never', 'connection', 'always'] as const;

export interface RetrySettings extends BudgetSettings {
  /** Retries of one request. */
  max: number;
  /** Whether a backend that was tried is tried again when there is no other: after a lost connection, or always. */
  same_backend: (typeof SAME_BACKEND)[number];
  /** Milliseconds before the first retry on the same backend, and at most. */
  backoff_ms: number;
  backoff_max_ms: number;
  /** The longest `Retry-After` that is waited for, in milliseconds; an answer that asks for more is passed on. */
  retry_after_max_ms: number;
}

export function statusReason(status: number): RetryReason | undefined {
  const known = STATUSES.find((candidate) => candidate === status);
  return known === undefined ? undefined : `status_${known}`;
}

export function connectionReason(reason: FailureReason): RetryReason | undefined {
  return CONNECTION.find((candidate) => candidate === reason);
}

/** What is known when an attempt has failed before its first byte. */
export interface FailedAttempt {
  reason: RetryReason;
  /** Attempts made so far, this one included. */
  attempts: number;
  /** The server had closed an idle connection. */
  stale?: boolean;
  /** A backend that was not tried can be. */
  another: boolean;
  /** Milliseconds until the first of the tried backends wants to be asked again. */
  restMs: number;
  /** Milliseconds that the request has left. */
  leftMs: number;
}

export type RetryPlan = { kind: 'retry'; waitMs: number } | { kind: 'give_up'; denied?: DeniedReason };

/** Whether an answer with this reason is worth keeping back: false is final, true is decided by `planRetry`. */
export function mayRetry(
  failed: Pick<FailedAttempt, 'reason' | 'attempts' | 'another'>,
  settings: RetrySettings,
): boolean {
  if (failed.attempts > settings.max) return false;
  if (failed.another || settings.same_backend === 'always') return true;
  return settings.same_backend === 'connection' && connectionReason(failed.reason as FailureReason) !== undefined;
}

/**
 * Another backend is asked at once, the same one after a pause, which is its `Retry-After` where that is longer.
 * A retry is taken from the budget; that after an idle connection which was closed is the first try, and waits for nothing.
 */
export function planRetry(failed: FailedAttempt, settings: RetrySettings, budget: RetryBudget): RetryPlan {
  if (!mayRetry(failed, settings)) return { kind: 'give_up' };
  if (failed.stale) return { kind: 'retry', waitMs: 0 };
  const backoff = { firstMs: settings.backoff_ms, maxMs: settings.backoff_max_ms };
  const waitMs = failed.another ? 0 : Math.max(failed.restMs, jittered(backoffMs(failed.attempts, backoff)));
  if (failed.restMs > settings.retry_after_max_ms && !failed.another) return { kind: 'give_up', denied: 'retry_after' };
  if (waitMs >= failed.leftMs) return { kind: 'give_up', denied: 'deadline' };
  return budget.take() ? { kind: 'retry', waitMs } : { kind: 'give_up', denied: 'budget' };
}
