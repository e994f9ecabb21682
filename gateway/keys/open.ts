import { connectRedis, type RedisConfig, shownUrl } from '../redis.ts';
import type { KeysConfig } from './config.ts';
import { KeyError } from './entry.ts';
import { createFileStore } from './file-store.ts';
import { createRedisStore } from './redis-store.ts';
import type { KeyStore } from './store.ts';

const CONNECT_MS = 5_000;

/** Opens the store that is configured; that of the file when keys are off. Rejects with KeyError when it cannot be reached. */
export async function openKeyStore(keys: KeysConfig, redis: RedisConfig): Promise<KeyStore> {
  if (keys.store !== 'redis') return createFileStore(keys.file);
  if (redis.url === undefined) throw new KeyError('gateway.keys.store is redis, and gateway.redis.url is missing');
  const place = shownUrl(redis.url);
  const client = connectRedis({ ...redis, url: redis.url });
  let reason = `no answer within ${CONNECT_MS} ms`;
  client.on('error', (error: Error) => {
    reason = error.message;
  });
  const ready = await new Promise<boolean>((resolve) => {
    const timer = setTimeout(() => resolve(false), CONNECT_MS);
    client.once('ready', () => {
      clearTimeout(timer);
      resolve(true);
    });
  });
  if (!ready) {
    client.disconnect();
    throw new KeyError(`cannot reach the keys in ${place}: ${reason}`);
  }
  return createRedisStore(client, redis.prefix, place);
}
