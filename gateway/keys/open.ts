import type { RedisLink } from '../redis.ts';
import type { KeysConfig } from './config.ts';
import { KeyError } from './entry.ts';
import { createFileStore } from './file-store.ts';
import { createRedisStore } from './redis-store.ts';
import type { KeyStore } from './store.ts';

const CONNECT_MS = 5_000;

/**
 * Opens the store that is configured; that of the file when keys are off. Rejects with KeyError when it cannot be reached.
 * The caller closes `redis`.
 */
export async function openKeyStore(keys: KeysConfig, redis: RedisLink | undefined): Promise<KeyStore> {
  if (keys.store !== 'redis') return createFileStore(keys.file);
  if (redis === undefined) throw new KeyError('gateway.keys.store is redis, but gateway.redis.url is missing');
  await redis.reached(CONNECT_MS).catch((error: Error) => {
    throw new KeyError(`cannot reach the keys in ${redis.place}: ${error.message}`);
  });
  return createRedisStore(redis);
}
