import { setTimeout as sleep } from 'node:timers/promises';

/**
 * What `promise` gives, or `late` when that takes longer than `ms`. Rejects as `promise` does when that is in time; what
 * it does later is ignored. Leaves no timer.
 */
export function within<T>(promise: PromiseLike<T>, ms: number): Promise<T | undefined>;
export function within<T, L>(promise: PromiseLike<T>, ms: number, late: L): Promise<T | L>;
export async function within<T, L>(promise: PromiseLike<T>, ms: number, late?: L): Promise<T | L | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const end = new Promise<L | undefined>((resolve) => {
    timer = setTimeout(() => resolve(late), ms);
  });
  try {
    return await Promise.race([promise, end]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits, or stops at once when the signal is aborted. Leaves no timer and no listener. Never rejects. */
export function pause(ms: number, signal?: AbortSignal): Promise<'elapsed' | 'stopped'> {
  return sleep(ms, 'elapsed' as const, signal === undefined ? {} : { signal }).catch(() => 'stopped');
}

export interface BackoffBounds {
  firstMs: number;
  maxMs: number;
}

/** The wait before try `n` (from 1): it doubles each time, up to a bound. */
export function backoffMs(n: number, { firstMs, maxMs }: BackoffBounds): number {
  // Beyond 30 the power could become infinite, and 0 times that is no number.
  return Math.min(maxMs, firstMs * 2 ** Math.min(n - 1, 30));
}

/** The wait less a random part, at most half of it: those that failed together do not all come back together. */
export function jittered(ms: number, random: () => number = Math.random): number {
  return ms * (0.5 + random() / 2);
}
