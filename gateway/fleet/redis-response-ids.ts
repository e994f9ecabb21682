import type { RedisLink } from '../redis.ts';
import type { LocalResponseIds, Made, ResponseIdSettings, ResponseIds } from './response-ids.ts';

export interface RedisResponseIdsDeps {
  redis: Pick<RedisLink, 'client' | 'prefix'>;
  /** What this gateway saw itself; asked first, and alone while Redis fails. */
  local: LocalResponseIds;
  settings: () => ResponseIdSettings;
  onFailure(): void;
}

/** The key's id, if there is one, and the backend: neither holds a space. */
const write = ({ backend, key }: Made): string => (key === undefined ? backend : `${key} ${backend}`);

function read(text: string): Made {
  const space = text.indexOf(' ');
  return space === -1
    ? { backend: text, key: undefined }
    : { key: text.slice(0, space), backend: text.slice(space + 1) };
}

/**
 * Which backend made which response, for several gateways. Ids leave Redis by their age; `remember_max` bounds the local
 * memory.
 */
export function createRedisResponseIds(deps: RedisResponseIdsDeps): ResponseIds {
  const { local, settings } = deps;
  const { client, prefix } = deps.redis;
  const keyOf = (id: string) => `${prefix}:response:${id}`;
  return {
    remember(id, made) {
      local.remember(id, made);
      const { remember_s } = settings();
      const stored =
        made.key === undefined
          ? client.set(keyOf(id), write(made), 'EX', remember_s)
          : client.set(keyOf(id), write(made), 'EX', remember_s, 'NX');
      stored.catch(deps.onFailure);
    },
    async find(id) {
      const known = local.find(id);
      if (known !== undefined) return known;
      try {
        const found = await client.get(keyOf(id));
        if (found === null) return undefined;
        const made = read(found);
        local.remember(id, made);
        return made;
      } catch {
        deps.onFailure();
        return 'unasked';
      }
    },
  };
}
