import { Redis } from 'ioredis';
import { z } from 'zod';
import { whole } from '../common/bounds.ts';
import { backoffMs, within } from '../common/time.ts';

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
        description: 'Redis in which several gateways share their counters; without it, each counts for itself',
      }),
    prefix: z
      .string()
      .regex(/^[A-Za-z0-9:._-]{1,64}$/, 'must be 1 to 64 of A-Z a-z 0-9 : . _ -')
      .default('crystalkv')
      .describe('Prefix of every name in Redis'),
    timeout_ms: whole(10, 10_000)
      .default(250)
      .describe('Timeout of a command; after one, Redis counts as failed until it answers again (10 to 10000)'),
    on_failure: z
      .enum(ON_FAILURE, `must be one of ${ON_FAILURE.join(', ')}`)
      .default('local')
      .describe(
        'While Redis fails: local: each gateway applies the limits by itself; deny: requests with a key get a 503',
      ),
  })
  .prefault({});
export type RedisConfig = z.output<typeof redisSchema>;

/** Milliseconds between two attempts to connect. */
const RECONNECT = { firstMs: 100, maxMs: 1_000 };

/**
 * What a Redis says that this connection is of no more use for: it is a replica now, reads its data still, or knows the
 * user no more. The address may lead to another by now, or the next login may be taken.
 */
const USELESS = /\b(READONLY|LOADING|MASTERDOWN|NOAUTH|WRONGPASS)\b/;
/** So often a value is written that nobody reads: a connection to a former primary is found even where all else reads. */
const PROBE_MS = 2_000;
/** After so many writes in a row without an answer another connection is made: the host may be gone without a word. */
const MAX_SILENT = 2;
const PROBE_TTL_MS = 60_000;

/** The connection of a process to Redis. All that the gateway keeps there goes through this one. */
export interface RedisLink {
  readonly client: Redis;
  /** In front of every name. */
  readonly prefix: string;
  /** The address without user and password, for messages. */
  readonly place: string;
  /** Resolves once it has been reached; rejects with the reason after `ms`. */
  reached(ms: number): Promise<void>;
  /** Rejects unless Redis takes a write. */
  probe(): Promise<unknown>;
  close(): void;
}

/**
 * A connection that comes back by itself; undefined without a URL. Nothing waits: a command fails at once while there is
 * no connection, and after `timeout_ms` when there is no answer. A command that failed is never sent again behind the
 * caller's back. An answer that says the connection is of no more use ends it, and another is made.
 */
export function openRedis({ url, prefix, timeout_ms }: RedisConfig): RedisLink | undefined {
  if (url === undefined) return undefined;
  const client = new Redis(url, {
    commandTimeout: timeout_ms,
    connectTimeout: Math.max(timeout_ms, 1_000),
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    connectionName: 'crystal-kv-gateway',
    reconnectOnError: ({ message }) => USELESS.test(message),
    retryStrategy: (times) => backoffMs(times, RECONNECT),
  });
  let reason: string | undefined;
  // Every command says by itself that it failed; without a listener the client would print it.
  client.on('error', (error: Error) => {
    reason = error.message;
  });
  const probe = () => client.set(`${prefix}:probe`, '1', 'PX', PROBE_TTL_MS);
  let silent = 0;
  const look = async () => {
    try {
      await probe();
      silent = 0;
    } catch {
      // Without a connection the next is being made already.
      silent = client.status === 'ready' ? silent + 1 : 0;
      if (silent < MAX_SILENT) return;
      silent = 0;
      client.disconnect(true);
    }
  };
  const timer = setInterval(() => void look(), PROBE_MS);
  timer.unref();
  const reached = new Promise<'reached'>((resolve) => void client.once('ready', () => resolve('reached')));
  return {
    client,
    prefix,
    place: shownUrl(url),
    async reached(ms) {
      if ((await within(reached, ms)) === undefined) throw new Error(reason ?? `no answer within ${ms} ms`);
    },
    probe,
    close() {
      clearInterval(timer);
      client.disconnect();
    },
  };
}

function shownUrl(url: string): string {
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname === '/' ? '' : pathname}`;
}
