import cluster from 'node:cluster';
import type { Registry } from 'prom-client';
import { listen } from '../common/http.ts';
import { logReload, takeOver } from '../common/reload.ts';
import { within } from '../common/time.ts';
import { type GatewayConfig, gatewaySchema } from './config.ts';
import { readPolicyCa } from './fleet/policy-ca.ts';
import { answerClientErrors } from './response/client-errors.ts';
import { allowHalfClosed } from './response/half-closed.ts';
import { readTls, reloadTls, type TlsFiles } from './tls.ts';
import { type GatewayDeps, type Parts, wire } from './wire.ts';

export interface Gateway {
  /** The port it got, also when 0 was asked for. */
  readonly port: number;
  readonly url: string;
  /** Where `/metrics` is: the same, unless it has a port of its own. */
  readonly metricsUrl: string;
  readonly registry: Registry;
  /**
   * Takes another configuration while requests run. Backends that stay keep what is known of them, removed ones finish
   * what they have. `profiles` are those that a request may name; without it they stay. Names the changed options that
   * need a restart.
   */
  reload(config: GatewayConfig, profiles?: readonly string[]): void;
  /**
   * Drains: takes no more connections, lets running requests go on for `drain_ms`, then ends streams with an error
   * event and the rest with a 503. Resolves when no connection, timer or request is left. May be called again.
   */
  close(): Promise<void>;
}

/** How often it is looked whether a request takes too long to come, and how long its head may take. */
const CHECK_MS = 5_000;
const HEAD_MS = 60_000;
/** For requests that were cut at the deadline to get their last bytes out. */
const FLUSH_MS = 1_000;

/** Workers get their connections from their parent, which does nothing else. */
const ACCEPTORS = cluster.isWorker ? 1 : 16;

/** Starts the gateway. Rejects when it cannot listen; the message names the address. */
export async function createGateway(initial: GatewayConfig, deps: GatewayDeps): Promise<Gateway> {
  const { logger } = deps;
  const tls = readTls(initial.tls);
  if (initial.policy_ca !== undefined) readPolicyCa(initial.policy_ca);
  let config = initial;
  const parts = await wire(() => config, deps);
  const { fleet, inflight } = parts;
  await fleet.ready();
  const { main, separate } = await openListeners(parts, initial, tls).catch(async (error: unknown) => {
    await parts.close();
    throw error;
  });
  logger.info({ url: main.url, backends: fleet.all.map(({ url }) => url) }, 'listening');

  const drain = async () => {
    inflight.drain();
    parts.ui?.close();
    logger.info({ running: inflight.size, deadline_ms: config.drain_ms }, 'draining');
    const closed = main.close();
    if ((await within(inflight.idle(), config.drain_ms, 'late')) === 'late') {
      logger.warn({ running: inflight.size }, 'the drain deadline has passed; running requests are cut off');
      inflight.stop('draining');
      await within(inflight.idle(), FLUSH_MS);
    }
    main.server.closeAllConnections();
    separate?.server.closeAllConnections();
    await Promise.all([closed, separate?.close(), parts.close()]);
    await deps.tracing?.close();
    logger.info('stopped');
  };
  let closing: Promise<void> | undefined;

  return {
    reload(next, profiles) {
      const taken = takeOver('gateway', gatewaySchema, config, next);
      reloadTls(main.server, tls, next.tls, logger);
      config = taken.config;
      fleet.update(config);
      if (profiles !== undefined) parts.setProfiles(profiles);
      logReload(logger, taken.needRestart, { backends: fleet.all.length });
    },
    port: main.port,
    url: main.url,
    metricsUrl: `${(separate ?? main).url}/metrics`,
    registry: parts.registry,
    close() {
      closing ??= drain();
      return closing;
    },
  };
}

/** The listener of the API, and that of `/metrics` where it has a port of its own. Rejects with neither left open. */
async function openListeners(parts: Parts, config: GatewayConfig, tls: TlsFiles | undefined) {
  const { host, port, metrics_host, metrics_port, timeouts } = config;
  const { total_ms, keep_alive_ms } = timeouts;
  const main = await listen(parts.app, host, port, tls, {
    connectionsCheckingInterval: Math.min(CHECK_MS, total_ms),
    headersTimeout: Math.min(HEAD_MS, total_ms),
    requestTimeout: total_ms,
    keepAliveTimeout: keep_alive_ms,
    acceptors: ACCEPTORS,
  });
  // Who may not send a body is told before it is sent.
  main.server.on('checkContinue', parts.app);
  allowHalfClosed(main.server);
  answerClientErrors(main.server);
  if (metrics_port === undefined) return { main, separate: undefined };
  try {
    return { main, separate: await listen(parts.metrics, metrics_host ?? host, metrics_port) };
  } catch (error) {
    await main.close();
    throw error;
  }
}
