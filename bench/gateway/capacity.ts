import type { Measured } from './loads.ts';

/** Events a second that are tried. */
export const RUNGS = [
  2_500, 5_000, 7_500, 10_000, 12_500, 15_000, 17_500, 20_000, 25_000, 30_000, 35_000, 40_000, 50_000, 60_000,
] as const;
/** What a gateway may add to the slowest hundredth of the events. */
export const MOST_ADDED_P99_MS = 20;
/** Streams begin over a second, and timers are late now and then. */
const LEAST_SHARE = 0.95;

/** How many events a second a target passed on. */
export interface Capacity {
  /** 0: not even the lowest rung. */
  eventsPerSecond: number;
  /** `load generator`: it could not send more either. */
  endedBy: 'target' | 'load generator';
}

/** What one try gave; `expected` events were to come. */
export interface Try {
  measured: Measured;
  expected: number;
}

/**
 * The highest rung at which a target passes on all events with less than `MOST_ADDED_P99_MS` added to what the upstream itself
 * needs at that rung. `tryDirect` and `tryTarget` load one of them with so many events a second; about four rungs are tried.
 */
export async function capacityOf(
  tryDirect: (rate: number) => Promise<Try>,
  tryTarget: (rate: number) => Promise<Try>,
): Promise<Capacity> {
  let low = -1;
  let high: number = RUNGS.length;
  let endedBy: Capacity['endedBy'] = 'target';
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    const rate = RUNGS[middle] as number;
    const base = p99Of(await tryDirect(rate));
    if (base === undefined || base >= MOST_ADDED_P99_MS) {
      high = middle;
      endedBy = 'load generator';
      continue;
    }
    const p99 = p99Of(await tryTarget(rate));
    if (p99 !== undefined && p99 - base < MOST_ADDED_P99_MS) low = middle;
    else {
      high = middle;
      endedBy = 'target';
    }
  }
  return { eventsPerSecond: RUNGS[low] ?? 0, endedBy };
}

/** Undefined: not all events came. */
function p99Of({ measured, expected }: Try): number | undefined {
  if (measured.kind !== 'streams' || measured.failed > 0 || measured.events < expected * LEAST_SHARE) return undefined;
  return measured.event_p99_ms;
}
