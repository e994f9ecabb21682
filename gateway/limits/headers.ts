import type { Counts, Limits } from './limiter.ts';

/** Longer pauses than this are not for a client's automatic retry. */
const MAX_RETRY_MS = 60_000;

/** What the clients of OpenAI know to read, names and values in turn; only for limits that the key has. */
export function limitHeaders({ requestsPerMinute, tokensPerMinute }: Limits, counts: Counts): string[] {
  const headers: string[] = [];
  const add = (kind: string, limit: number | undefined, used: number, resetMs: number) => {
    if (limit === undefined) return;
    headers.push(`x-ratelimit-limit-${kind}`, String(limit));
    headers.push(`x-ratelimit-remaining-${kind}`, String(Math.max(0, limit - used)));
    headers.push(`x-ratelimit-reset-${kind}`, duration(resetMs));
  };
  add('requests', requestsPerMinute, counts.requests, counts.requestsResetMs);
  add('tokens', tokensPerMinute, counts.tokens + counts.reserved, counts.tokensResetMs);
  return headers;
}

/** `Retry-After` in whole seconds, and in milliseconds as OpenAI's clients prefer it. */
export function retryHeaders(retryMs: number): Record<string, string> {
  return {
    'retry-after': String(Math.max(1, Math.ceil(retryMs / 1000))),
    'retry-after-ms': String(Math.max(1, Math.ceil(retryMs))),
    ...(retryMs > MAX_RETRY_MS && { 'x-should-retry': 'false' }),
  };
}

/** As OpenAI writes it: `120ms`, `5.25s`, `1m0s`. */
function duration(ms: number): string {
  if (ms < 1000) return `${Math.ceil(ms)}ms`;
  if (ms < 60_000) return `${Math.ceil(ms / 10) / 100}s`;
  const seconds = Math.ceil(ms / 1000);
  return `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}
