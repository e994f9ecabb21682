import type { KeyEntry } from './entry.ts';

/** Where keys are kept. What it holds may be changed by other processes at any time. */
export interface KeyStore {
  /** For messages: a path, or a Redis address without its password. */
  readonly place: string;
  /**
   * All keys, and a mark that changes with them; undefined when nothing has changed since `mark`. Rejects with KeyError,
   * or with the reason why the store cannot be reached.
   */
  load(mark?: string): Promise<Loaded | undefined>;
  /** Adds one. Rejects with KeyError when the name is taken. */
  add(entry: KeyEntry): Promise<void>;
  /** Takes out the one with that id or name, and gives it back. Rejects with KeyError when there is none. */
  remove(idOrName: string): Promise<KeyEntry>;
}

export interface Loaded {
  entries: readonly KeyEntry[];
  mark: string;
}
