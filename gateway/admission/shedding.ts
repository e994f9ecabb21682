import { monitorEventLoopDelay } from 'node:perf_hooks';

/** Tells when this process has more to do than it can: its event loop comes late. */
export interface LoadShedder {
  /** Whether a new request is to be turned away. */
  readonly overloaded: boolean;
  /** Mean delay of the event loop over the last look, in milliseconds. */
  readonly delayMs: number;
  close(): void;
}

const LOOK_MS = 1_000;
/** The histogram measures how long a timer of this length takes, so this much of each value is no delay. */
const RESOLUTION_MS = 10;

/** `limitMs` 0: never. One long pause alone is not an overload: the mean over a second is what counts. */
export function createLoadShedder(limitMs: () => number): LoadShedder {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  histogram.enable();
  let delayMs = 0;
  const timer = setInterval(() => {
    // Without a sample there is no mean.
    delayMs = histogram.count === 0 ? 0 : Math.max(0, histogram.mean / 1e6 - RESOLUTION_MS);
    histogram.reset();
  }, LOOK_MS);
  timer.unref();
  return {
    get overloaded() {
      const limit = limitMs();
      return limit > 0 && delayMs > limit;
    },
    get delayMs() {
      return delayMs;
    },
    close() {
      clearInterval(timer);
      histogram.disable();
    },
  };
}
