/** Something that is done again and again. */
export interface Repeated {
  /** Does it now, unless it is being done; resolves when it is done. */
  now(): Promise<void>;
  stop(): void;
}

/** While it is switched off, this often it is looked whether it still is. */
const OFF_MS = 1_000;

/**
 * Does `work` at once and then `intervalMs()` after it was last done, less up to a tenth at random, so that many
 * gateways do not ask at the same moment; 0 means not now. The process may end meanwhile. `work` must not reject.
 */
export function repeat(work: () => Promise<void>, intervalMs: () => number): Repeated {
  let stopped = false;
  let running: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;

  const schedule = () => {
    if (stopped) return;
    const interval = intervalMs();
    timer = setTimeout(tick, interval === 0 ? OFF_MS : interval * (1 - Math.random() / 10));
    timer.unref();
  };
  const now = (): Promise<void> => {
    if (stopped) return Promise.resolve();
    clearTimeout(timer);
    running ??= work().finally(() => {
      running = undefined;
      clearTimeout(timer);
      schedule();
    });
    return running;
  };
  const tick = () => {
    if (intervalMs() === 0) schedule();
    else void now();
  };
  tick();

  return {
    now,
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}
