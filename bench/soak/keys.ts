import { type KeyEntry, readEntry } from '../../gateway/keys/entry.ts';
import { createFileStore } from '../../gateway/keys/file-store.ts';
import { createSecret } from '../../gateway/keys/secret.ts';
import { type Behaviour, EXACT, NAMES } from './behaviours.ts';

interface KeyPlan {
  clients: number;
  /** What its clients ask the upstream for. */
  behaviours: readonly Behaviour[];
  /** Some of them leave before the end, or read slowly. */
  unruly: boolean;
  /** Undefined: the gateway does not know this key. */
  grants: Readonly<Record<string, number>> | undefined;
  /** Its limits are met all the time. */
  tight?: true;
  /** The longest pause of a client between two requests, in milliseconds. */
  thinkMs: number;
}

const NEVER_MET = { requests_per_minute: 10_000_000, tokens_per_day: 1_000_000_000_000 };
const TIGHT = { requests_per_minute: 120, tokens_per_minute: 20_000, concurrent_requests: 2 };

export const KEY_PLANS = {
  /** Limits that are never met, and nothing that has to be estimated: its tokens are known exactly. */
  steady: { clients: 14, behaviours: EXACT, unruly: false, grants: NEVER_MET, thinkMs: 60 },
  mixed: {
    clients: 20,
    behaviours: NAMES,
    unruly: true,
    grants: { ...NEVER_MET, tokens_per_minute: 1_000_000_000, concurrent_requests: 100_000, priority: 10 },
    thinkMs: 60,
  },
  /** No limits: Redis does not know it. */
  free: { clients: 8, behaviours: NAMES, unruly: true, grants: {}, thinkMs: 60 },
  tight: { clients: 5, behaviours: EXACT, unruly: false, grants: TIGHT, tight: true, thinkMs: 300 },
  unknown: { clients: 1, behaviours: ['answer'], unruly: false, grants: undefined, thinkMs: 300 },
} as const satisfies Record<string, KeyPlan>;
export type KeyName = keyof typeof KEY_PLANS;

export const KEY_NAMES = Object.keys(KEY_PLANS) as KeyName[];
export const planOf = (name: KeyName): KeyPlan => KEY_PLANS[name];
export const isLimited = (name: KeyName): boolean => Object.keys(planOf(name).grants ?? {}).length > 0;

export interface SoakKey {
  secret: string;
  id: string;
}

/** Makes all keys, and a file of those that the gateway is to know. */
export async function createKeys(file: string): Promise<Record<KeyName, SoakKey>> {
  const store = createFileStore(file);
  const made: [KeyName, SoakKey][] = [];
  for (const name of KEY_NAMES) {
    const { id, secret, digest } = createSecret();
    made.push([name, { id, secret }]);
    const { grants } = planOf(name);
    if (grants === undefined) continue;
    const entry: KeyEntry = readEntry(
      { id, name, sha256: digest, created: new Date().toISOString(), ...grants },
      `the key ${name}`,
    );
    await store.add(entry);
  }
  return Object.fromEntries(made) as Record<KeyName, SoakKey>;
}
