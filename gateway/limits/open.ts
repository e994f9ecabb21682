import type { Registry } from 'prom-client';
import type { Logger } from '../../common/logger.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { createLimitMetrics, createRedisMetrics, exposeRedisState } from '../observe/metrics.ts';
import type { RedisConfig, RedisLink } from '../redis.ts';
import type { LimitsConfig } from './config.ts';
import { createKeyLimits, type KeyLimits } from './key-limits.ts';
import { createMemoryLimiter } from './memory.ts';
import { createModelLengths } from './model-lengths.ts';
import { createRedisLimiter } from './redis.ts';
import { createResilientLimiter, type ResilientLimiter } from './resilient.ts';

export interface OpenLimitsDeps {
  config: LimitsConfig;
  /** Undefined: counters are in memory. The caller closes it. */
  redis: RedisLink | undefined;
  onFailure: RedisConfig['on_failure'];
  fleet: Pick<Fleet, 'all'>;
  registry: Registry;
  logger: Logger;
}

/** The limits of keys, with counters in Redis where it is configured, else in memory. Never rejects. */
export async function openLimits(deps: OpenLimitsDeps): Promise<KeyLimits> {
  const { limited, used } = createLimitMetrics(deps.registry);
  return createKeyLimits({
    limiter: deps.redis === undefined ? alone() : await shared(deps.redis, deps),
    config: deps.config,
    lengths: createModelLengths(deps.fleet),
    onLimited: (key, limit) => limited.inc({ key, limit }),
    onUsed: (key, limit, share) => {
      limited.inc({ key, limit }, 0);
      used.set({ key, limit }, share);
    },
  });
}

function alone(): ResilientLimiter {
  return { ...createMemoryLimiter(), healthy: true, close() {} };
}

async function shared({ client, prefix, probe }: RedisLink, deps: OpenLimitsDeps): Promise<ResilientLimiter> {
  const { failures, fallbacks } = createRedisMetrics(deps.registry);
  const limiter = createResilientLimiter({
    shared: createRedisLimiter(client, prefix),
    local: createMemoryLimiter(),
    probe,
    onFailure: deps.onFailure,
    logger: deps.logger,
    onFailed: (operation) => failures.inc({ operation }),
    onFallback: (outcome) => fallbacks.inc({ outcome }),
  });
  exposeRedisState(deps.registry, limiter);
  return limiter;
}
