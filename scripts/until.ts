import { pause } from '../common/time.ts';

const PATIENCE_MS = 20_000;
const POLL_MS = 10;

export interface Patience {
  /** How long nothing may happen. */
  ms?: number;
  /** Whatever changes when what is awaited comes nearer, such as a count: with each change the patience begins anew. */
  progress?: () => unknown;
  /** Between two checks. */
  pollMs?: number;
  signal?: AbortSignal | undefined;
}

/** What was awaited did not happen. */
export class PatienceError extends Error {
  override readonly name = 'PatienceError';
}

/**
 * The first thing that `check` gives other than false or undefined. Rejects with PatienceError when the patience is at its
 * end, with the signal's reason, and as `check` does.
 *
 * A pause between two checks counts as the time that was asked for. On a busy machine it takes longer, and the deadline
 * moves away with it: what is awaited gets as few turns as this does.
 */
export async function until<T>(
  check: () => T | false | undefined | Promise<T | false | undefined>,
  what: string,
  { ms = PATIENCE_MS, progress, pollMs = POLL_MS, signal }: Patience = {},
): Promise<T> {
  let spent = 0;
  let last = progress?.();
  for (;;) {
    signal?.throwIfAborted();
    const asked = performance.now();
    const result = await check();
    if (result !== false && result !== undefined) return result;
    const now = progress?.();
    spent = now === last ? spent + performance.now() - asked + pollMs : 0;
    last = now;
    if (spent > ms) throw new PatienceError(`did not happen within ${ms} ms: ${what}`);
    await pause(pollMs, signal);
  }
}
