import type { Logger } from '../../common/logger.ts';
import type { KeyEntry } from './entry.ts';
import { digestOf, idOf, matches } from './secret.ts';
import type { KeyStore } from './store.ts';

/** A change, such as a revocation, is seen within about this many milliseconds. */
const REFRESH_MS = 1_000;
/** Compared with when nobody has the id, so that this takes as long. */
const NOBODY = digestOf('');

/** The keys that are good now. */
export interface Keyring {
  readonly size: number;
  /** The entry of the key that was presented; undefined: it is none, or was revoked. */
  find(presented: string): KeyEntry | undefined;
  /** Whether a key that was found is still good. */
  holds(key: KeyEntry): boolean;
  /** Looks at the store at once. Never rejects. */
  refresh(): Promise<void>;
  close(): void;
}

/**
 * Holds the keys in memory and follows the store. While the store cannot be read, or holds nonsense, the keys that were
 * read last stay good, and `onFailure` is told each time; `onChange` when there are others than before. Rejects when the first read fails.
 */
export async function createKeyring(
  store: KeyStore,
  deps: { logger: Logger; onFailure: () => void; onChange?: (() => void) | undefined; refreshMs?: number },
): Promise<Keyring> {
  let mark: string | undefined;
  let byId: ReadonlyMap<string, KeyEntry> = new Map();
  let failing = false;

  const load = async () => {
    const loaded = await store.load(mark);
    if (loaded === undefined) return;
    mark = loaded.mark;
    byId = new Map(loaded.entries.map((entry) => [entry.id, entry]));
    deps.logger.info({ keys: byId.size, store: store.place }, 'API keys loaded');
  };
  await load();

  const refresh = async () => {
    try {
      const before = byId;
      await load();
      if (byId !== before) deps.onChange?.();
      if (failing) deps.logger.info({ store: store.place }, 'API keys can be loaded again');
      failing = false;
    } catch (error) {
      deps.onFailure();
      if (!failing)
        deps.logger.warn(
          { store: store.place, reason: (error as Error).message },
          'cannot load the API keys; the last ones stay valid',
        );
      failing = true;
    }
  };
  let running: Promise<void> | undefined;
  const once = () => {
    running ??= refresh().finally(() => {
      running = undefined;
    });
    return running;
  };
  const timer = setInterval(once, deps.refreshMs ?? REFRESH_MS);
  timer.unref();

  return {
    get size() {
      return byId.size;
    },
    find(presented) {
      const id = idOf(presented);
      const entry = id === undefined ? undefined : byId.get(id);
      return matches(presented, entry?.sha256 ?? NOBODY) ? entry : undefined;
    },
    holds: ({ id, sha256 }) => byId.get(id)?.sha256 === sha256,
    refresh: once,
    close: () => clearInterval(timer),
  };
}
