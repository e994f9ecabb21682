import { Redis } from 'ioredis';
import { type RedisProcess, startRedisProcess } from '../../scripts/redis-process.ts';

export { NO_REDIS } from '../../scripts/redis-process.ts';

/** A Redis that ends with its test. */
export interface RedisServer extends RedisProcess {
  /** A connection for the test itself. */
  client(): Redis;
}

export async function startRedis(t: { after(end: () => void | Promise<void>): void }): Promise<RedisServer> {
  const redis = await startRedisProcess();
  const clients: Redis[] = [];
  t.after(async () => {
    for (const client of clients) client.disconnect();
    await redis.close();
  });
  return {
    ...redis,
    client() {
      const client = new Redis(redis.url);
      client.on('error', () => {});
      clients.push(client);
      return client;
    },
  };
}
