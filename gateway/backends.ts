import { Pool } from 'undici';
import type { GatewayConfig } from './config.ts';

/** A server that requests are sent to. */
export interface Backend {
  /** As configured; the metric label. */
  readonly url: string;
  /** In front of every path: what the address has after the host. */
  readonly prefix: string;
  readonly pool: Pool;
  /** Requests sent and not ended. */
  outstanding: number;
}

export interface Backends {
  readonly all: readonly Backend[];
  /** The one with the least outstanding requests that is not in `tried`, in turn among equals. */
  pick(tried: readonly Backend[]): Backend | undefined;
  /** Ends every connection, running requests included. */
  close(): Promise<void>;
}

/** One connection pool for each backend. A pool grows with the requests in flight: each has a connection of its own. */
export function createBackends(config: Pick<GatewayConfig, 'backends' | 'timeouts'>): Backends {
  const { connect_ms, first_byte_ms, idle_ms } = config.timeouts;
  const all = config.backends.map(({ url }): Backend => {
    const { origin, pathname } = new URL(url);
    const pool = new Pool(origin, {
      // The version of the protocol in which a pause on one request does not hold up another.
      allowH2: false,
      pipelining: 1,
      connectTimeout: connect_ms,
      headersTimeout: first_byte_ms,
      bodyTimeout: idle_ms,
    });
    return { url, prefix: pathname === '/' ? '' : pathname, pool, outstanding: 0 };
  });
  let turn = 0;
  return {
    all,
    pick(tried) {
      turn = (turn + 1) % all.length;
      let best: Backend | undefined;
      for (let i = 0; i < all.length; i++) {
        const candidate = all[(turn + i) % all.length] as Backend;
        if (tried.includes(candidate)) continue;
        if (best === undefined || candidate.outstanding < best.outstanding) best = candidate;
      }
      return best;
    },
    async close() {
      await Promise.all(all.map(({ pool }) => pool.destroy()));
    },
  };
}
