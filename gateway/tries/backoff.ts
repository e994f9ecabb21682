/** Milliseconds. */
export interface BackoffSettings {
  backoff_ms: number;
  backoff_max_ms: number;
}

/** The wait before retry `n` (from 1): doubles each time up to a bound, and a random half of it is left out. */
export function backoffMs(n: number, { backoff_ms, backoff_max_ms }: BackoffSettings, random = Math.random): number {
  const full = Math.min(backoff_max_ms, backoff_ms * 2 ** (n - 1));
  return full * (0.5 + random() / 2);
}

/** Waits, or stops at once with the signal. Leaves no timer and no listener. */
export function pause(ms: number, signal: AbortSignal): Promise<'elapsed' | 'stopped'> {
  if (signal.aborted) return Promise.resolve('stopped');
  return new Promise((resolve) => {
    const onAbort = () => {
      clearTimeout(timer);
      resolve('stopped');
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort);
      resolve('elapsed');
    }, ms);
    signal.addEventListener('abort', onAbort, { once: true });
  });
}

/** Milliseconds that a `Retry-After` asks for (RFC 9110, 10.2.3): seconds or a date; undefined when it is neither. */
export function retryAfterMs(value: string | undefined, nowMs = Date.now()): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(value.trim())) return Number(value) * 1000;
  // Each form of an HTTP date begins with the day's name; Date.parse takes much more for a date.
  const at = /^[A-Za-z]{3}/.test(value) ? Date.parse(value) : Number.NaN;
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs);
}
