/** Milliseconds that a `Retry-After` asks for (RFC 9110, 10.2.3): seconds or a date; undefined when it is neither. */
export function retryAfterMs(value: string | undefined, nowMs = Date.now()): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(value.trim())) return Number(value) * 1000;
  // Each form of an HTTP date begins with the day's name; Date.parse takes much more for a date.
  const at = /^[A-Za-z]{3}/.test(value) ? Date.parse(value) : Number.NaN;
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs);
}
