import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { open, readFile, rename, stat, unlink } from 'node:fs/promises';
import { pause } from '../../common/time.ts';
import { type KeyEntry, KeyError, readEntries } from './entry.ts';
import type { KeyStore } from './store.ts';

/** A lock that is older belongs to a process that was killed. */
const STALE_LOCK_MS = 10_000;
const LOCK_TRIES = 100;
const LOCK_PAUSE_MS = 50;

/**
 * Keys in a JSON file: `{"keys": [...]}`. It is replaced as a whole, so that a reader never sees half of it, and only its
 * owner can read it. A missing file holds no keys.
 */
export function createFileStore(path: string): KeyStore {
  return {
    place: path,
    async load(mark) {
      const now = await markOf(path);
      if (now === mark) return undefined;
      return { entries: await read(path), mark: now };
    },
    add: (entry) =>
      locked(path, async () => {
        const entries = await read(path);
        const taken = entries.find(({ name, id }) => name === entry.name || id === entry.id);
        if (taken !== undefined) throw new KeyError(`the name ${entry.name} is already used by the key ${taken.id}`);
        await write(path, readEntries([...entries, entry], path));
      }),
    remove: (idOrName) =>
      locked(path, async () => {
        const entries = await read(path);
        const found = entries.find(({ id, name }) => id === idOrName || name === idOrName);
        if (found === undefined) throw new KeyError(`${path} has no key with the id or name ${idOrName}`);
        await write(
          path,
          entries.filter((entry) => entry !== found),
        );
        return found;
      }),
  };
}

/** Changes with every replacement of the file. */
async function markOf(path: string): Promise<string> {
  try {
    const { ino, mtimeNs, size } = await stat(path, { bigint: true });
    return `${ino}-${mtimeNs}-${size}`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'none';
    throw new KeyError(`cannot read the keys in ${path}: ${(error as Error).message}`);
  }
}

/** Throws KeyError where a gateway could not start with this file. */
export function checkKeysFile(path: string): void {
  try {
    entriesIn(readFileSync(path, 'utf8'), path);
  } catch (error) {
    refuse(path, error);
  }
}

async function read(path: string): Promise<KeyEntry[]> {
  try {
    return entriesIn(await readFile(path, 'utf8'), path);
  } catch (error) {
    return refuse(path, error);
  }
}

/** A file that is not there holds no keys. */
function refuse(path: string, error: unknown): [] {
  if (error instanceof KeyError) throw error;
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
  throw new KeyError(`cannot read the keys in ${path}: ${(error as Error).message}`);
}

function entriesIn(text: string, path: string): KeyEntry[] {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw new KeyError(`${path} is not valid JSON: ${(error as Error).message}`);
  }
  return readEntries((content as { keys?: unknown } | null)?.keys, `${path}: keys`);
}

async function write(path: string, entries: readonly KeyEntry[]): Promise<void> {
  const draft = `${path}.${randomBytes(4).toString('hex')}`;
  try {
    const file = await open(draft, 'wx', 0o600);
    try {
      await file.writeFile(`${JSON.stringify({ keys: entries }, null, 2)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
  } catch (error) {
    await unlink(draft).catch(() => {});
    throw new KeyError(`cannot write the keys to ${path}: ${(error as Error).message}`);
  }
}

/** One change at a time, also from several processes. */
async function locked<T>(path: string, change: () => Promise<T>): Promise<T> {
  const lock = `${path}.lock`;
  for (let tries = 0; ; tries++) {
    try {
      await (await open(lock, 'wx', 0o600)).close();
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
        throw new KeyError(`cannot create ${lock}: ${(error as Error).message}`);
      }
      if (tries === LOCK_TRIES) throw new KeyError(`cannot change ${path}: another process holds ${lock}`);
      const age = await stat(lock).then(
        ({ mtimeMs }) => Date.now() - mtimeMs,
        () => 0,
      );
      if (age > STALE_LOCK_MS) await unlink(lock).catch(() => {});
      else await pause(LOCK_PAUSE_MS);
    }
  }
  try {
    return await change();
  } finally {
    await unlink(lock).catch(() => {});
  }
}
