/** The limits of one key; undefined: not limited. */
export interface Limits {
  requestsPerMinute?: number | undefined;
  tokensPerMinute?: number | undefined;
  concurrentRequests?: number | undefined;
  tokensPerDay?: number | undefined;
}

/** Which limit stands in the way. */
export const LIMIT_NAMES = [
  'concurrent_requests',
  'requests_per_minute',
  'tokens_per_minute',
  'tokens_per_day',
] as const;
export type LimitName = (typeof LIMIT_NAMES)[number];

/**
 * What was counted of a key. Minutes slide: `requests` and `tokens` are those of the last 60 s, seen in slices of 5 s that
 * count until they are out as a whole, so that no 60 s ever see more than the limit. `reserved` are the tokens that running
 * requests may still take.
 */
export interface Counts {
  requests: number;
  tokens: number;
  tokensToday: number;
  reserved: number;
  running: number;
  /** Milliseconds until the last slice is out. */
  requestsResetMs: number;
  tokensResetMs: number;
}

export type Verdict =
  | { kind: 'admitted'; counts: Counts }
  /** `retryMs`: when it may be possible, if nobody else comes first. */
  | { kind: 'refused'; limit: LimitName; retryMs: number; counts: Counts };

/**
 * Counts requests and tokens of keys. Request and concurrency limits are exact: of any number of requests at once, on any
 * number of gateways that share the counters, exactly as many are admitted as there is room for. Tokens are known only
 * when a request has ended, so a running one reserves what it may take, and one is admitted while what was used and
 * reserved is below the limit: the limit is passed by no more than what the last one took.
 */
export interface Limiter {
  /** Asks and, when there is room, counts the request and reserves its tokens. */
  admit(lease: Lease, limits: Limits): Promise<Verdict>;
  /** Whether a request would be admitted now. Counts and reserves nothing. */
  look(key: string, limits: Limits): Promise<Verdict>;
  /** The request has ended, and took that many tokens. */
  settle(lease: Lease, tokens: number): Promise<void>;
  /** Tokens of requests that were admitted elsewhere. */
  charge(key: string, tokens: number): Promise<void>;
  /** Says that these requests run still. What is not renewed for `lease` ms counts as ended, and its gateway as gone. */
  renew(leases: readonly Lease[]): Promise<void>;
}

/** One admitted request. */
export interface Lease {
  readonly key: string;
  /** Unlike that of any other request of any gateway. */
  readonly id: string;
  /** Tokens that it may take; more than MAX_RESERVE count as that. */
  readonly reserve: number;
}

/** More counts as so much: no server makes it, and the sum of those of all running requests is an exact number still. */
export const MAX_RESERVE = 2 ** 40;

/** Lengths in milliseconds. The tests shorten them. */
export interface Windows {
  slice: number;
  slices: number;
  day: number;
  lease: number;
}

export const WINDOWS: Windows = { slice: 5_000, slices: 12, day: 86_400_000, lease: 30_000 };
export const RENEW_MS = 10_000;
/** Until a request of the same key may have ended. */
export const RETRY_RUNNING_MS = 1_000;
