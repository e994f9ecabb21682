import { Redis } from 'ioredis';
import { z } from 'zod';
import { whole } from './bounds.ts';

/** What a gateway does with a request whose limits cannot be counted in Redis. */
export const ON_FAILURE = ['local', 'deny'] as const;

/** The part `gateway.redis` of the configuration. */
export const redisSchema = z
  .strictObject({
    url: z
      .url({ protocol: /^rediss?$/, error: 'must be an address such as redis://127.0.0.1:6379' })
      .optional()
      .meta({
        secret: true,
        description: 'Where several gateways share their counters; without it each counts for itself',
      }),
    prefix: z
      .string()
      .regex(/^[A-Za-z0-9:._-]{1,64}$/, 'must be 1 to 64 of A-Z a-z 0-9 : . _ -')
      .default('crystalkv')
      .describe('In front of every name in Redis'),
    timeout_ms: whole(10, 10_000)
      .default(250)
      .describe('For one command; then Redis counts as failed until it answers again (10 to 10000)'),
    on_failure: z
      .enum(ON_FAILURE, `must be one of ${ON_FAILURE.join(', ')}`)
      .default('local')
      .describe(
        'While Redis fails: local, each gateway applies the limits by itself; deny, 503 for requests with a key',
      ),
  })
  .prefault({});
export type RedisConfig = z.output<typeof redisSchema>;

/** Milliseconds between two attempts to connect. */
const RECONNECT = { least: 50, most: 1_000 };

/**
 * A connection that comes back by itself. Nothing waits: a command fails at once while there is no connection, and after
 * `timeout_ms` when there is no answer. A command that failed is never sent again behind the caller's back.
 */
export function connectRedis(config: RedisConfig & { url: string }): Redis {
  const redis = new Redis(config.url, {
    commandTimeout: config.timeout_ms,
    connectTimeout: Math.max(config.timeout_ms, 1_000),
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    connectionName: 'crystal-kv-gateway',
    retryStrategy: (times) => Math.min(RECONNECT.least * 2 ** Math.min(times, 10), RECONNECT.most),
  });
  // Every command says by itself that it failed; without a listener the client would print it.
  redis.on('error', () => {});
  return redis;
}

/** The address without user and password. */
export function shownUrl(url: string): string {
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname === '/' ? '' : pathname}`;
}
