import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 10;
const PATIENCE_MS = 20_000;

export interface Patience {
  /** How long nothing may happen. */
  ms?: number;
  /** Whatever changes when what is awaited comes nearer, such as a count: with each change the patience begins anew. */
  progress?: () => unknown;
}

/**
 * The first thing that `check` gives other than false or undefined. Rejects when the patience is at its end, and as
 * `check` does.
 *
 * A pause between two checks counts as the time that was asked for. On a busy machine it takes longer, and the deadline
 * moves away with it: what is awaited gets as few turns as this does.
 */
export async function until<T>(
  check: () => T | false | undefined | Promise<T | false | undefined>,
  what: string,
  { ms = PATIENCE_MS, progress }: Patience = {},
): Promise<T> {
  let spent = 0;
  let last = progress?.();
  for (;;) {
    const asked = performance.now();
    const result = await check();
    if (result !== false && result !== undefined) return result;
    const now = progress?.();
    spent = now === last ? spent + performance.now() - asked + POLL_MS : 0;
    last = now;
    if (spent > ms) throw new Error(`did not happen within ${ms} ms: ${what}`);
    await sleep(POLL_MS);
  }
}
