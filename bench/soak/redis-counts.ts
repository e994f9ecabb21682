import { Redis } from 'ioredis';
import { createRedisLimiter } from '../../gateway/limits/redis.ts';
import { type Sample, total } from '../../scripts/metrics/text.ts';
import type { RedisProcess } from '../../scripts/redis-process.ts';
import { PatienceError, until } from '../../scripts/until.ts';
import { tokensOfKey } from './key-tally.ts';
import { isLimited, KEY_NAMES, type KeyName, type SoakKey } from './keys.ts';

const PREFIX = 'crystalkv';
/** A request that Redis admitted when nobody waited for its answer any more counts as running, and reserves, for 30 s. */
const LEASES_END_MS = 60_000;
const POLL_MS = 1_000;

export type Keys = Readonly<Record<KeyName, SoakKey>>;

/** What is wrong with the counters in Redis, of which nothing was lost, beside the gateway's metrics; one line each. */
export async function redisDisagreements(
  redis: RedisProcess,
  keys: Keys,
  samples: readonly Sample[],
): Promise<string[]> {
  const problems: string[] = [];
  const failures = total(samples, 'crystalkv_gateway_redis_failures_total');
  if (failures > 0) problems.push(`${failures} commands failed while nobody disturbed Redis`);
  await withClient(redis, async (client) => {
    for (const key of KEY_NAMES.filter(isLimited)) {
      const counts = await client.hgetall(`${PREFIX}:{${keys[key].id}}:counts`);
      const days = Object.entries(counts).filter(([field]) => field.startsWith('d'));
      const tokens = days.reduce((sum, [, value]) => sum + Number(value), 0);
      const counted = tokensOfKey(samples, key);
      if (tokens !== counted) problems.push(`key ${key}: Redis has ${tokens} tokens, the gateway counted ${counted}`);
    }
  });
  return problems;
}

/**
 * Waits for the end of all leases, at most `patienceMs`. Gives a line for each key of which one stays, a request that is over and
 * still counts, for each that has tokens reserved for no request, and for each entry in Redis that has no end.
 */
export async function leftLeases(
  redis: Pick<RedisProcess, 'url'>,
  keys: Keys,
  signal: AbortSignal,
  patienceMs: number = LEASES_END_MS,
): Promise<string[]> {
  return await withClient(redis, async (client) => {
    const limiter = createRedisLimiter(client, PREFIX);
    let problems: string[] = [];
    const none = async () => {
      problems = [];
      for (const key of KEY_NAMES.filter(isLimited)) {
        const { id } = keys[key];
        // Takes back what ended leases had reserved, as each request of the key does. Then the stored sum is to be zero.
        const { running } = (await limiter.look(id, {})).counts;
        const reserved = Number((await client.hget(`${PREFIX}:{${id}}:counts`, 'reserved')) ?? 0);
        if (running > 0) problems.push(`key ${key}: ${running} requests run on in Redis`);
        if (reserved !== 0) problems.push(`key ${key}: ${reserved} tokens stay reserved`);
      }
      return problems.length === 0;
    };
    await until(none, 'leases end', { ms: patienceMs, pollMs: POLL_MS, signal }).catch((error: unknown) => {
      if (!(error instanceof PatienceError)) throw error;
    });
    for (const name of await client.keys(`${PREFIX}:*`)) {
      // -1: it never ends.
      if ((await client.ttl(name)) === -1) problems.push(`${name} stays in Redis for ever`);
    }
    return problems;
  });
}

async function withClient<T>(redis: Pick<RedisProcess, 'url'>, use: (client: Redis) => Promise<T>): Promise<T> {
  const client = new Redis(redis.url);
  client.on('error', () => {});
  try {
    return await use(client);
  } finally {
    client.disconnect();
  }
}
