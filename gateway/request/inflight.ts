import type { StopReason } from '../observe/outcomes.ts';

/** A request that can be stopped. */
interface Stoppable {
  readonly stop: AbortController;
}

/** The requests that run, and whether more may come. */
export interface Inflight {
  readonly size: number;
  readonly draining: boolean;
  /** From now on nothing new is served. */
  drain(): void;
  /** Stops all that run. */
  stop(reason: StopReason): void;
  /** Resolves once none runs. */
  idle(): Promise<void>;
  add(request: Stoppable): void;
  remove(request: Stoppable): void;
}

export function createInflight(): Inflight {
  const running = new Set<Stoppable>();
  let waiting: (() => void)[] = [];
  let draining = false;
  return {
    get size() {
      return running.size;
    },
    get draining() {
      return draining;
    },
    drain() {
      draining = true;
    },
    stop(reason) {
      for (const { stop } of running) stop.abort(reason);
    },
    idle() {
      return running.size === 0 ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve));
    },
    add: (request) => void running.add(request),
    remove(request) {
      running.delete(request);
      if (running.size > 0) return;
      for (const resolve of waiting) resolve();
      waiting = [];
    },
  };
}
