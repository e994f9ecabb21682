import { setTimeout as sleep } from 'node:timers/promises';
import { readMetrics, total } from '../../scripts/metrics/text.ts';
import { usageOf } from '../gateway/proc.ts';
import { add } from '../statistics.ts';
import { fewest, type Sockets, socketsOf } from './sockets.ts';
import type { Stand } from './stand.ts';

const QUIET_MS = 120_000;
const POLL_MS = 500;
/** Longer than undici keeps an idle connection, and than health checks are apart. */
const IDLE_MS = 15_000;

/** What a gateway without traffic holds. */
export interface Look {
  heap: number;
  /** Those that stay: health checks and questions for metrics have theirs now and then. */
  sockets: Sockets;
  rss: number;
}

/** After the end of everything that runs. */
export async function look(stand: Stand, signal: AbortSignal): Promise<Look> {
  await quiet(stand, signal);
  const { pid } = stand.gateway;
  const sockets = await lastingSockets(pid, signal);
  return { heap: await stand.inspector.heapBytes(), sockets, rss: usageOf(pid).rssBytes };
}

/** Waits until no request is under way anywhere, and Redis is used. */
async function quiet({ upstreams, url }: Stand, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + QUIET_MS;
  for (;;) {
    const open = add(await Promise.all(upstreams.map(async (at) => Number(await (await fetch(`${at}/open`)).text()))));
    const hasRedis = total(await readMetrics(`${url}/metrics`), 'crystalkv_gateway_redis_up') === 1;
    if (open === 0 && hasRedis) return;
    if (performance.now() > deadline) {
      const what = open > 0 ? `${open} requests are under way at the upstream` : 'the gateway does not use Redis';
      throw new Error(`${what} ${QUIET_MS} ms after the last client`);
    }
    await sleep(POLL_MS, undefined, { signal });
  }
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
