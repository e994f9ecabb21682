import type { RequestListener } from 'node:http';
import { Registry } from 'prom-client';
import { type MetricsSource, metricsHandler } from '../common/http.ts';
import type { Logger } from '../common/logger.ts';
import { createAdmission } from './admission/admission.ts';
import { createLoadShedder } from './admission/shedding.ts';
import { createApp } from './app.ts';
import { createRetryBudget } from './attempts/budget.ts';
import { createServe } from './attempts/serve.ts';
import { type GatewayConfig, servesUi } from './config.ts';
import { createFleet, type Fleet } from './fleet/fleet.ts';
import { createRedisResponseIds } from './fleet/redis-response-ids.ts';
import { createResponseIds, type LocalResponseIds, type ResponseIds } from './fleet/response-ids.ts';
import { createStick } from './fleet/sticky.ts';
import { createOptionReader } from './keys/access.ts';
import { LOOPBACK } from './keys/config.ts';
import { createKeyring, type Keyring } from './keys/keyring.ts';
import { createLocalOnly } from './keys/local-only.ts';
import { openKeyStore } from './keys/open.ts';
import { openLimits } from './limits/open.ts';
import { createBackendSeries } from './observe/backend-series.ts';
import { createGenAiMetrics } from './observe/gen-ai.ts';
import { createMetrics, exposeState } from './observe/metrics.ts';
import type { Tracing } from './observe/tracing.ts';
import { openApiDocument } from './openapi/document.ts';
import { openRedis } from './redis.ts';
import { createBodyMemory } from './request/body-memory.ts';
import { createInflight, type Inflight } from './request/inflight.ts';
import { createThinking } from './thinking/thinking.ts';
import { createUi, type Ui } from './ui/ui.ts';
import { createMetering } from './usage/metering.ts';
import { createModelNames } from './usage/model-names.ts';

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

/** The parts of a gateway that its life is about; all others are behind `app`. */
export interface Parts {
  app: RequestListener;
  /** Answers `/metrics`, also on a listener of its own. */
  metrics: RequestListener;
  registry: Registry;
  fleet: Fleet;
  inflight: Inflight;
  ui: Ui | undefined;
  /** Requests may name these profiles from now on. */
  setProfiles(profiles: readonly string[]): void;
  /** Ends every timer and connection of the parts. */
  close(): Promise<void>;
}

/** At the start, Redis is given this long to answer before requests are decided without it. */
const CONNECT_MS = 2_000;

/**
 * Makes the parts and connects them. `config` gives the configuration of the moment; what is read from it here stays as
 * it is at the start. Rejects when the API keys cannot be read; then nothing is left open.
 */
export async function wire(config: () => GatewayConfig, deps: GatewayDeps): Promise<Parts> {
  const { logger, tracing } = deps;
  const start = config();
  const registry = new Registry();
  const metrics = createMetrics(registry);
  const series = createBackendSeries(metrics);
  const genAi = createGenAiMetrics(registry);
  const inflight = createInflight();

  const redis = openRedis(start.redis);
  // So that the first commands find a connection. A Redis that is down fails them, and whoever sent them copes with it.
  await redis?.reached(CONNECT_MS).catch(() => {});
  const openKeyring = async () =>
    await createKeyring(await openKeyStore(start.keys, redis), {
      logger,
      onFailure: () => metrics.keyFailures.inc(),
      onChange: () => inflight.stop('key_revoked', (key) => keyring?.holds(key) === false),
    });
  const keyring: Keyring | undefined =
    start.keys.store === 'off'
      ? undefined
      : await openKeyring().catch((error: unknown) => {
          redis?.close();
          throw error;
        });
  const fleet = createFleet(start, {
    times: start.timeouts,
    policy: { token: start.policy_token, caFile: start.policy_ca },
    logger,
    concurrency: () => config().admission.concurrency,
    onAdded: ({ url }) => series.start(url),
    onGone: ({ url }) => series.forget(url),
    onDns: (name, result) => metrics.dnsLookups.inc({ name, result }),
  });
  const limits =
    keyring === undefined
      ? undefined
      : await openLimits({ config: start.limits, redis, onFailure: start.redis.on_failure, fleet, registry, logger });
  const admission = createAdmission(fleet, () => config().admission, metrics);
  const shedder = createLoadShedder(() => config().admission.event_loop_delay_ms);
  const bodyMemory = createBodyMemory(() => Math.max(config().admission.body_bytes, start.body_limit_bytes));
  exposeState(registry, { inflight, admission, shedder, fleet, bodyMemory });
  const names = createModelNames(fleet);
  const local = createResponseIds(() => config().responses);
  const responseIds =
    redis === undefined
      ? (deps.responseIdsOf?.(local) ?? local)
      : createRedisResponseIds({
          redis,
          local,
          settings: () => config().responses,
          onFailure: () => metrics.responseIdFailures.inc(),
        });
  const metering = createMetering({
    ...{ fleet, names, metrics, keyed: keyring !== undefined },
    ...{ usage: start.usage, compat: start.compat, limits: start.limits },
  });
  const budgetTokens = { min: start.options.budget_tokens_min, max: start.options.budget_tokens_max };
  const withProfiles = (profiles: readonly string[]) => {
    const limits = { budgetTokens, profiles };
    return { readOption: createOptionReader(limits), openApi: openApiDocument(limits) };
  };
  let named = withProfiles(deps.profiles);
  const peers = () => fleet.all.flatMap(({ peer }) => peer ?? []);
  const ui = servesUi(start) ? createUi({ peers, budgetTokens }) : undefined;
  const metricsListener = metricsHandler(deps.metricsOf?.(registry) ?? registry);

  const app = createApp({
    ...{ fleet, inflight, keyring, limits, metering, metrics, series, genAi, names, shedder, logger, tracing, ui },
    openApi: () => named.openApi,
    serve: createServe({
      ...{ fleet, admission, metrics, responseIds },
      retries: () => config().retries,
      budget: createRetryBudget(() => config().retries),
    }),
    stick: createStick(fleet, responseIds),
    thinking: createThinking(() => config().thinking),
    cors: start.cors,
    isLocal:
      keyring === undefined && LOOPBACK.test(start.host)
        ? createLocalOnly({ hosts: start.allowed_hosts, origins: start.cors.origins })
        : undefined,
    request: { fleet, forcesUsage: metering.forces, readOption: (...option) => named.readOption(...option) },
    bodyLimit: start.body_limit_bytes,
    bodyMemory,
    totalMs: () => config().timeouts.total_ms,
    pingMs: () => config().timeouts.ping_ms,
    metricsHandler: start.metrics_port === undefined ? metricsListener : undefined,
  });

  return {
    ...{ app, registry, fleet, inflight, ui, metrics: metricsListener },
    setProfiles(profiles) {
      named = withProfiles(profiles);
    },
    async close() {
      shedder.close();
      keyring?.close();
      await limits?.close();
      redis?.close();
      await fleet.close();
    },
  };
}
