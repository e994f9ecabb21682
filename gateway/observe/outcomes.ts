/** Why the gateway itself stops a request. */
export type StopReason = 'client_left' | 'draining' | 'total_timeout';

/** What became of a request; a metric label. */
export type Outcome = 'ok' | 'client_error' | 'server_error' | 'client_abort' | 'broken';

/** Where a request was when its client left; a metric label. */
export const ABORT_STAGES = ['upload', 'queued', 'waiting', 'backoff', 'streaming'] as const;
export type AbortStage = (typeof ABORT_STAGES)[number];

/** What a client was given after a response broke off; a metric label. */
export const BROKEN_ENDS = ['told', 'reset', 'complete'] as const;
export type BrokenEnd = (typeof BROKEN_ENDS)[number];

/** Label of requests that no route takes. */
export const OTHER_ROUTE = 'other';
