import { Counter, Gauge, type Registry } from 'prom-client';
import type { Logger } from '../../common/logger.ts';
import { connectRedis, ON_FAILURE, type RedisConfig } from '../redis.ts';
import type { LimitsConfig } from './config.ts';
import { createKeyLimits, type KeyLimits } from './key-limits.ts';
import { createMemoryLimiter } from './memory.ts';
import { createRedisLimiter } from './redis.ts';
import { createResilientLimiter, OPERATIONS, type ResilientLimiter } from './resilient.ts';

export interface OpenLimitsDeps {
  redis: RedisConfig;
  limits: LimitsConfig;
  registry: Registry;
  logger: Logger;
}

/** At the start, Redis is given this long to answer before requests are decided without it. */
const CONNECT_MS = 2_000;

/** The limits of keys, with counters in Redis where it is configured, else in memory. Never rejects. */
export async function openLimits({ redis, limits, registry, logger }: OpenLimitsDeps): Promise<KeyLimits> {
  const registers = [registry];
  const limited = new Counter({
    name: 'crystalkv_gateway_limited_total',
    help: 'Requests that a limit of their key refused, by the name of the key and the limit',
    labelNames: ['key', 'limit'] as const,
    registers,
  });
  const used = new Gauge({
    name: 'crystalkv_gateway_limit_used_ratio',
    help: "How much of a key's limit was used and reserved at its last request, by the name of the key and the limit; of several workers the most",
    aggregator: 'max',
    labelNames: ['key', 'limit'] as const,
    registers,
  });
  const gate = (limiter: ResilientLimiter) =>
    createKeyLimits({
      limiter,
      config: limits,
      onLimited: (key, limit) => limited.inc({ key, limit }),
      onUsed: (key, limit, share) => {
        limited.inc({ key, limit }, 0);
        used.set({ key, limit }, share);
      },
    });
  if (redis.url === undefined) return gate(alone());

  const failures = new Counter({
    name: 'crystalkv_gateway_redis_failures_total',
    help: 'Commands that Redis did not answer, or not in time, by what they were for',
    labelNames: ['operation'] as const,
    registers,
  });
  const fallbacks = new Counter({
    name: 'crystalkv_gateway_limit_fallbacks_total',
    help: 'Requests whose limits were decided without Redis: by local counters, or denied',
    labelNames: ['outcome'] as const,
    registers,
  });
  for (const operation of OPERATIONS) failures.inc({ operation }, 0);
  for (const outcome of ON_FAILURE) fallbacks.inc({ outcome }, 0);
  const client = connectRedis({ ...redis, url: redis.url });
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, CONNECT_MS);
    client.once('ready', () => {
      clearTimeout(timer);
      resolve();
    });
  });
  const limiter = createResilientLimiter({
    shared: createRedisLimiter(client, redis.prefix),
    local: createMemoryLimiter(),
    ping: () => client.ping(),
    onFailure: redis.on_failure,
    logger,
    onFailed: (operation) => failures.inc({ operation }),
    onFallback: (outcome) => fallbacks.inc({ outcome }),
  });
  new Gauge({
    name: 'crystalkv_gateway_redis_up',
    help: '1 while the counters of limits are shared through Redis, by all workers',
    aggregator: 'min',
    registers,
    collect() {
      this.set(limiter.healthy ? 1 : 0);
    },
  });
  return gate(limiter);
}

function alone(): ResilientLimiter {
  const memory = createMemoryLimiter();
  return { ...memory, healthy: true };
}
