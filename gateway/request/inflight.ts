import type { KeyEntry } from '../keys/entry.ts';
import type { StopReason } from '../observe/outcomes.ts';

/** A request that can be stopped. */
interface Stoppable {
  readonly stop: AbortController;
  /** Whose it is; undefined while nobody is asked for a key. */
  readonly key: KeyEntry | undefined;
}

/** The requests that run, and whether more may come. */
export interface Inflight {
  readonly size: number;
  readonly draining: boolean;
  /** From now on nothing new is served. */
  drain(): void;
  /** Stops all that run, or those of some keys. */
  stop(reason: StopReason, ofKey?: (key: KeyEntry) => boolean): void;
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
    stop(reason, ofKey) {
      for (const { stop, key } of running) {
        if (ofKey === undefined || (key !== undefined && ofKey(key))) stop.abort(reason);
      }
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
