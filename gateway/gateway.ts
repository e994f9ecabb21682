import type { Server } from 'node:http';
import { Server as TlsServer } from 'node:https';
import { Registry } from 'prom-client';
import { listen, type MetricsSource, metricsHandler } from '../common/http.ts';
import type { Logger } from '../common/logger.ts';
import { type Admission, createAdmission } from './admission/admission.ts';
import { createAdmissionMetrics } from './admission/metrics.ts';
import { createLoadShedder } from './admission/shedding.ts';
import { createApp } from './app.ts';
import { createRetryBudget } from './attempts/budget.ts';
import { createServe } from './attempts/serve.ts';
import { type GatewayConfig, servesUi } from './config.ts';
import { createFleet } from './fleet/fleet.ts';
import { registerFleetMetrics } from './fleet/metrics.ts';
import { createRedisResponseIds } from './fleet/redis-response-ids.ts';
import { createResponseIds, type LocalResponseIds, type ResponseIds } from './fleet/response-ids.ts';
import { createStick } from './fleet/sticky.ts';
import { createOptionReader } from './keys/access.ts';
import { createKeyring } from './keys/keyring.ts';
import { openKeyStore } from './keys/open.ts';
import { openLimits } from './limits/open.ts';
import { createMetrics } from './observe/metrics.ts';
import { createInflight } from './observe/record.ts';
import type { Tracing } from './observe/tracing.ts';
import { openApiDocument } from './openapi/document.ts';
import { connectRedis } from './redis.ts';
import { answerClientErrors } from './response/client-errors.ts';
import { readTls, type TlsFiles } from './tls.ts';
import { createUi } from './ui/ui.ts';
import { createMetering } from './usage/metering.ts';
import { createModelNames, type ModelNames, OTHER_MODEL } from './usage/model-names.ts';

export interface GatewayDeps {
  logger: Logger;
  /** The profiles that a request may name; empty: any plain name. */
  profiles: readonly string[];
  /** Closed with the gateway; none: traces of clients and backends pass through. */
  tracing?: Tracing | undefined;
  /** What `/metrics` shows instead of this process's own. */
  metricsOf?: ((own: Registry) => MetricsSource) | undefined;
  /** Adds what other processes remember where Redis does not. */
  responseIdsOf?: ((own: LocalResponseIds) => ResponseIds) | undefined;
}

export interface Gateway {
  /** The port it got, also when 0 was asked for. */
  readonly port: number;
  readonly url: string;
  /** Where `/metrics` is: the same, unless it has a port of its own. */
  readonly metricsUrl: string;
  readonly registry: Registry;
  /**
   * Takes another configuration while requests run. Backends that stay keep what is known of them, removed ones finish
   * what they have. Names the options that are fixed until the next start.
   */
  reload(config: GatewayConfig): void;
  /**
   * Drains: takes no more connections, lets running requests go on for `drain_ms`, then ends streams with an error
   * event and the rest with a 503. Resolves when no connection, timer or request is left. May be called again.
   */
  close(): Promise<void>;
}

/** Longer than the 60 s after which common balancers give up an idle connection: they should close it, not we. */
const KEEP_ALIVE_MS = 65_000;
/** For requests that were cut at the deadline to get their last bytes out. */
const FLUSH_MS = 1_000;

/** Options that are read at the start only. */
const FIXED = [
  'host',
  'port',
  'metrics_port',
  'ui',
  'body_limit_bytes',
  'options',
  'timeouts',
  'policy_token',
  'policy_ca',
  'keys',
  'redis',
  'limits',
  'cors',
  'metrics_host',
  'usage',
  'compat',
  'allow_unauthenticated',
] as const satisfies readonly (keyof GatewayConfig)[];

/** Starts the gateway. Rejects when it cannot listen; the message names the address. */
export async function createGateway(initial: GatewayConfig, deps: GatewayDeps): Promise<Gateway> {
  const { logger } = deps;
  const tls = readTls(initial.tls);
  let config = initial;
  let admission: Admission | undefined;
  const registry = new Registry();
  const inflight = createInflight();
  let names: ModelNames | undefined;
  const metrics = createMetrics(
    registry,
    () => inflight.size,
    (model) => names?.label(model) ?? OTHER_MODEL,
  );
  const keyring =
    config.keys.store === 'off'
      ? undefined
      : await createKeyring(await openKeyStore(config.keys, config.redis), {
          logger,
          onFailure: () => metrics.keyFailures.inc(),
        });
  const limits =
    keyring === undefined
      ? undefined
      : await openLimits({ redis: config.redis, limits: config.limits, registry, logger });
  const fleet = createFleet(config, {
    times: config.timeouts,
    policy: { token: config.policy_token, caFile: config.policy_ca },
    logger,
    concurrency: () => config.admission.concurrency,
    onAdded: ({ url }) => metrics.addBackend(url),
    onGone: ({ url }) => metrics.removeBackend(url),
    onRoom: () => admission?.wake(),
    onDns: (name, result) => metrics.dnsLookups.inc({ name, result }),
  });
  const shedder = createLoadShedder(() => config.admission.event_loop_delay_ms);
  const admissionMetrics = createAdmissionMetrics(registry, { depth: () => admission?.depth ?? 0, shedder });
  const gate = createAdmission(fleet, () => config.admission, admissionMetrics);
  admission = gate;
  const { url: redisUrl } = config.redis;
  const redis = redisUrl === undefined ? undefined : connectRedis({ ...config.redis, url: redisUrl });
  const localIds = createResponseIds(() => config.responses);
  const responseIds =
    redis === undefined
      ? (deps.responseIdsOf?.(localIds) ?? localIds)
      : createRedisResponseIds({
          redis,
          prefix: config.redis.prefix,
          local: localIds,
          settings: () => config.responses,
          onFailure: () => metrics.responseIdFailures.inc(),
        });
  registerFleetMetrics(registry, fleet);
  names = createModelNames(fleet);
  const metering = createMetering({
    fleet,
    names,
    registry,
    usage: config.usage,
    compat: config.compat,
    limits: config.limits,
    keyed: keyring !== undefined,
  });
  const budget = createRetryBudget(() => config.retries);
  let draining = false;
  const serveMetrics = metricsHandler(deps.metricsOf?.(registry) ?? registry);
  const optionLimits = {
    budgetTokens: { min: config.options.budget_tokens_min, max: config.options.budget_tokens_max },
    profiles: deps.profiles,
  };
  const peers = () => fleet.all.flatMap(({ peer }) => peer ?? []);
  const ui = servesUi(config) ? createUi({ peers, budgetTokens: optionLimits.budgetTokens }) : undefined;
  const app = createApp({
    openApi: openApiDocument(optionLimits),
    fleet,
    serve: createServe({ fleet, admission: gate, metrics, budget, retries: () => config.retries, responseIds }),
    stick: createStick(fleet, responseIds),
    shedder,
    onShed: () => admissionMetrics.shed.inc({ reason: 'event_loop' }),
    metrics,
    inflight,
    logger,
    tracing: deps.tracing,
    cors: config.cors,
    keyring,
    limits,
    metering,
    request: {
      fleet,
      forcesUsage: metering.forces,
      readOption: createOptionReader(optionLimits),
    },
    bodyLimit: config.body_limit_bytes,
    totalMs: () => config.timeouts.total_ms,
    draining: () => draining,
    metricsHandler: config.metrics_port === undefined ? serveMetrics : undefined,
    ui,
  });

  await fleet.ready();
  const closeParts = async () => {
    shedder.close();
    keyring?.close();
    await limits?.close();
    redis?.disconnect();
    await fleet.close();
  };
  const main = await listen(app, config.host, config.port, tls).catch(async (error: unknown) => {
    await closeParts();
    throw error;
  });
  main.server.keepAliveTimeout = KEEP_ALIVE_MS;
  answerClientErrors(main.server);
  const separate =
    config.metrics_port === undefined
      ? undefined
      : await listen(serveMetrics, config.metrics_host ?? config.host, config.metrics_port).catch(
          async (error: unknown) => {
            await Promise.all([main.close(), closeParts()]);
            throw error;
          },
        );
  logger.info({ url: main.url, backends: fleet.all.map(({ url }) => url) }, 'listening');

  const drain = async () => {
    draining = true;
    ui?.close();
    logger.info({ running: inflight.size, deadline_ms: config.drain_ms }, 'draining');
    const closed = main.close();
    if (!(await within(inflight.idle(), config.drain_ms))) {
      logger.warn({ running: inflight.size }, 'the deadline has passed; running requests are cut');
      inflight.stop('draining');
      await within(inflight.idle(), FLUSH_MS);
    }
    main.server.closeAllConnections();
    separate?.server.closeAllConnections();
    await Promise.all([closed, separate?.close(), closeParts()]);
    await deps.tracing?.close();
    logger.info('stopped');
  };
  let closing: Promise<void> | undefined;

  return {
    reload(next) {
      const fixed = FIXED.filter((key) => JSON.stringify(next[key]) !== JSON.stringify(config[key]));
      reloadTls(main.server, tls, next, logger);
      config = { ...next, ...Object.fromEntries(FIXED.map((key) => [key, config[key]])) };
      fleet.update(config);
      gate.wake();
      if (fixed.length > 0) logger.warn({ options: fixed }, 'these options change with the next start only');
      logger.info({ backends: fleet.all.length }, 'the configuration was read again');
    },
    port: main.port,
    url: main.url,
    metricsUrl: `${(separate ?? main).url}/metrics`,
    registry,
    close() {
      closing ??= drain();
      return closing;
    },
  };
}

/** The files may have been replaced under the same names: new connections get the new certificate. */
function reloadTls(server: Server, started: TlsFiles | undefined, next: GatewayConfig, logger: Logger): void {
  try {
    const files = readTls(next.tls);
    if ((files === undefined) !== (started === undefined)) {
      logger.warn({ options: ['tls'] }, 'TLS is turned on and off with the next start only');
    } else if (files !== undefined && server instanceof TlsServer) server.setSecureContext(files);
  } catch (error) {
    logger.error({ reason: (error as Error).message }, 'the certificate stays as it was');
  }
}

/** Whether `event` came within `ms`. */
function within(event: Promise<void>, ms: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), ms);
    void event.then(() => {
      clearTimeout(timer);
      resolve(true);
    });
  });
}
