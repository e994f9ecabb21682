import type { Redis } from 'ioredis';
import type { ResponseIdSettings, ResponseIds } from './response-ids.ts';

export interface RedisResponseIdsDeps {
  redis: Redis;
  /** In front of every name. */
  prefix: string;
  /** What this gateway saw itself; asked first, and alone while Redis fails. */
  local: ResponseIds;
  settings: () => ResponseIdSettings;
  onFailure(): void;
}

/**
 * Which backend made which response, for several gateways. Ids leave Redis by their age; `remember_max` bounds the local
 * memory. While Redis fails, a response that another gateway saw made is asked for at every backend.
 */
export function createRedisResponseIds(deps: RedisResponseIdsDeps): ResponseIds {
  const { redis, prefix, local, settings } = deps;
  const keyOf = (id: string) => `${prefix}:response:${id}`;
  return {
    remember(id, backend) {
      local.remember(id, backend);
      redis.set(keyOf(id), backend, 'EX', settings().remember_s).catch(deps.onFailure);
    },
    async find(id) {
      const known = await local.find(id);
      if (known !== undefined) return known;
      try {
        const found = await redis.get(keyOf(id));
        if (found === null) return undefined;
        local.remember(id, found);
        return found;
      } catch {
        deps.onFailure();
        return undefined;
      }
    },
  };
}
