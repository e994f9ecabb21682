import type { RedisLink } from '../redis.ts';
import { type KeyEntry, KeyError, readEntries } from './entry.ts';
import type { KeyStore } from './store.ts';

/** KEYS: entries by id, version. ARGV: id, entry. 0: the id or name is taken. */
const ADD = `
local name = cjson.decode(ARGV[2]).name
for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
  if cjson.decode(text).name == name then return 0 end
end
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('INCR', KEYS[2])
return 1`;

/** KEYS: entries by id, version. ARGV: id or name. Gives what was removed, or false. */
const REMOVE = `
for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
  local entry = cjson.decode(text)
  if entry.id == ARGV[1] or entry.name == ARGV[1] then
    redis.call('HDEL', KEYS[1], entry.id)
    redis.call('INCR', KEYS[2])
    return text
  end
end
return false`;

/** KEYS: entries by id, version. ARGV: the version that is known. Gives version and entries, or false. */
const LOAD = `
local version = redis.call('GET', KEYS[2]) or '0'
if version == ARGV[1] then return false end
return {version, redis.call('HVALS', KEYS[1])}`;

/** Keys in Redis, for several gateways: one hash, and a version that rises with every change. */
export function createRedisStore({ client, prefix, place }: Pick<RedisLink, 'client' | 'prefix' | 'place'>): KeyStore {
  // One slot in a cluster.
  const names = [`${prefix}:{keys}:entries`, `${prefix}:{keys}:version`] as const;
  const run = (script: string, ...args: string[]) => client.eval(script, names.length, ...names, ...args);
  return {
    place,
    async load(mark = '') {
      const answer = (await run(LOAD, mark)) as [version: string, entries: string[]] | null;
      if (answer === null) return undefined;
      const [version, texts] = answer;
      return { entries: readEntries(texts.map(parse), place), mark: version };
    },
    async add(entry) {
      const added = await run(ADD, entry.id, JSON.stringify(entry));
      if (added === 0) throw new KeyError(`the name ${entry.name} is already used`);
    },
    async remove(idOrName) {
      const text = (await run(REMOVE, idOrName)) as string | null;
      if (text === null) throw new KeyError(`${place} has no key with the id or name ${idOrName}`);
      return JSON.parse(text) as KeyEntry;
    },
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
