/** Why the gateway itself stops a request. */
export type StopReason = 'client_left' | 'draining' | 'key_revoked' | 'total_timeout';

/** What became of a request; a metric label, as all the lists below are. */
export type Outcome = 'ok' | 'client_error' | 'server_error' | 'client_abort' | 'broken';

/** Where a request was when its client left. */
export const ABORT_STAGES = ['upload', 'queued', 'waiting', 'backoff', 'streaming'] as const;
export type AbortStage = (typeof ABORT_STAGES)[number];

/** What a client was given after a response broke off. */
export const BROKEN_ENDS = ['told', 'reset', 'complete'] as const;
export type BrokenEnd = (typeof BROKEN_ENDS)[number];

/** Why a request was turned away before it reached a backend. */
export const SHED_REASONS = ['queue_full', 'queue_timeout', 'displaced', 'event_loop', 'body_bytes'] as const;

/** Where the tokens of a response come from. */
export const USAGE_SOURCES = ['reported', 'estimated', 'none'] as const;
export type UsageSource = (typeof USAGE_SOURCES)[number];

/** What a client that asked for a report of the cache got. */
export const REPORT_OUTCOMES = ['told', 'missing'] as const;

/** Label of requests that no route takes. */
export const OTHER_ROUTE = 'other';
