import { Pool } from 'undici';

/** A server as the configuration or DNS names it. */
export interface BackendSpec {
  /** The root of the server, without a trailing slash; also the metric label. */
  url: string;
  /** host:port of the policy service beside it. */
  policyAddress?: string | undefined;
}

/** Milliseconds. */
export interface ConnectionTimes {
  connect_ms: number;
  first_byte_ms: number;
  idle_ms: number;
}

/**
 * A server that requests are sent to. Its pool grows with the requests in flight: each has a connection of its own.
 */
export class Backend {
  readonly url: string;
  /** In front of every path: what the address has after the host. */
  readonly prefix: string;
  readonly pool: Pool;
  spec: BackendSpec;
  /** Requests sent and not ended. */
  outstanding = 0;
  /** It asked for a pause (`Retry-After`): not before this time, in `performance.now()`, while another can be asked. */
  restsUntil = 0;
  #leaving: (() => void) | undefined;

  constructor(spec: BackendSpec, times: ConnectionTimes) {
    const { origin, pathname } = new URL(spec.url);
    this.url = spec.url;
    this.spec = spec;
    this.prefix = pathname === '/' ? '' : pathname;
    this.pool = new Pool(origin, {
      // The version of the protocol in which a pause on one request does not hold up another.
      allowH2: false,
      pipelining: 1,
      connectTimeout: times.connect_ms,
      headersTimeout: times.first_byte_ms,
      bodyTimeout: times.idle_ms,
    });
  }

  begin(): void {
    this.outstanding++;
  }

  end(): void {
    this.outstanding--;
    if (this.outstanding === 0) this.#leaving?.();
  }

  /** Resolves when the last request has ended, after which its connections are closed. It must not be picked any more. */
  async leave(): Promise<void> {
    if (this.outstanding > 0) {
      await new Promise<void>((resolve) => {
        this.#leaving = resolve;
      });
    }
    await this.pool.destroy();
  }

  /** Ends every connection, running requests included. */
  async close(): Promise<void> {
    await this.pool.destroy();
  }
}
