import { setTimeout as sleep } from 'node:timers/promises';
import { readMetrics } from '../../scripts/metrics/text.ts';
import { until } from '../../scripts/until.ts';
import type { Testbed } from './testbed.ts';

/** Longer than the gateway waits for a command. */
const FROZEN_MS = 5_000;
const DEAD_MS = 3_000;
const RELOAD_MS = 30_000;

/** What happens beside the traffic: Redis freezes and crashes, the configuration changes. */
export interface Disturber {
  /** Which outage of Redis this is; 0: it answers, as far as it was left alone. */
  readonly outage: number;
  readonly counts: Readonly<Record<'frozen' | 'killed' | 'reloaded', number>>;
  /** One after the other until `end` (in performance.now()), with pauses. Everything is as before afterwards. */
  run(end: number, pauseMs: number, signal: AbortSignal): Promise<void>;
}

export function createDisturber({ redis, url, reload, second }: Testbed): Disturber {
  const counts = { frozen: 0, killed: 0, reloaded: 0 };
  let outage = 0;
  let isReduced = false;

  type Act = (signal: AbortSignal) => Promise<void>;
  const during = async (
    ms: number,
    signal: AbortSignal,
    hit: () => void | Promise<void>,
    mend: () => void | Promise<void>,
  ) => {
    await hit();
    outage = counts.frozen + counts.killed;
    try {
      await sleep(ms, undefined, { signal });
    } finally {
      outage = 0;
      await mend();
    }
  };
  const freeze: Act = (signal) => {
    counts.frozen += 1;
    return during(FROZEN_MS, signal, redis.freeze, redis.thaw);
  };
  const kill: Act = (signal) => {
    counts.killed += 1;
    return during(DEAD_MS, signal, redis.kill, redis.start);
  };
  /** One of the upstreams goes, or comes again. */
  const toggle: Act = async (signal) => {
    isReduced = !isReduced;
    counts.reloaded += 1;
    reload(isReduced);
    const seen = async () => {
      const samples = await readMetrics(`${url}/metrics`);
      const isThere = samples.some(
        ({ name, labels }) => name === 'crystalkv_gateway_backend_healthy' && labels['backend'] === second,
      );
      return isThere !== isReduced;
    };
    await until(seen, 'the gateway has the changed configuration', { ms: RELOAD_MS, signal });
  };

  return {
    counts,
    get outage() {
      return outage;
    },
    async run(end, pauseMs, signal) {
      try {
        for (let turn = 0; ; turn++) {
          await sleep(pauseMs, undefined, { signal });
          const act = [freeze, toggle, kill, toggle][turn % 4] as Act;
          if (performance.now() + FROZEN_MS > end) return;
          await act(signal);
        }
      } finally {
        if (isReduced && !signal.aborted) await toggle(signal);
      }
    },
  };
}
