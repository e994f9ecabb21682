import { setTimeout as sleep } from 'node:timers/promises';
import { readMetrics, total } from '../../scripts/metrics/text.ts';
import { until } from '../../scripts/until.ts';
import { usageOf } from '../gateway/proc.ts';
import { add } from '../statistics.ts';
import { fewest, type Sockets, socketsOf } from './sockets.ts';
import type { Testbed } from './testbed.ts';

const QUIET_MS = 120_000;
const POLL_MS = 500;
/** Longer than undici keeps an idle connection, and than health checks are apart. */
const IDLE_MS = 15_000;

/** What a gateway without traffic holds. */
export interface IdleSnapshot {
  heap: number;
  /** Those that stay: health checks and questions for metrics have theirs now and then. */
  sockets: Sockets;
  rss: number;
}

/** Waits until everything that runs has ended. */
export async function takeIdleSnapshot(testbed: Testbed, signal: AbortSignal): Promise<IdleSnapshot> {
  await idle(testbed, signal);
  const { pid } = testbed.gateway;
  const sockets = await lastingSockets(pid, signal);
  return { heap: await testbed.inspector.heapBytes(), sockets, rss: usageOf(pid).rssBytes };
}

/** Waits until no request is under way anywhere, and Redis is used. */
async function idle({ upstreams, url }: Testbed, signal: AbortSignal): Promise<void> {
  let open: number | undefined;
  const isIdle = async () => {
    open = add(await Promise.all(upstreams.map(async (at) => Number(await (await fetch(`${at}/open`)).text()))));
    return open === 0 && total(await readMetrics(`${url}/metrics`), 'crystalkv_gateway_redis_up') === 1;
  };
  const patience = { ms: QUIET_MS, pollMs: POLL_MS, signal, progress: () => open };
  await until(isIdle, 'no request is under way at an upstream, and the gateway uses Redis', patience);
}

async function lastingSockets(pid: number, signal: AbortSignal): Promise<Sockets> {
  const end = performance.now() + IDLE_MS;
  let lasting = socketsOf(pid);
  while (performance.now() < end) {
    await sleep(POLL_MS, undefined, { signal });
    lasting = fewest(lasting, socketsOf(pid));
  }
  return lasting;
}
