import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type KeyEntry, readEntry } from '../../gateway/keys/entry.ts';
import { createFileStore } from '../../gateway/keys/file-store.ts';
import { createSecret } from '../../gateway/keys/secret.ts';
import type { KeyStore } from '../../gateway/keys/store.ts';
import { type Setup, setup } from '../gateway/harness.ts';
import type { Script } from '../gateway/upstream.ts';

export interface TestKey {
  secret: string;
  entry: KeyEntry;
}

/** A key that is in no store yet. */
export function newKey(name: string, grants: object = {}): TestKey {
  const { id, secret, digest } = createSecret();
  const entry = readEntry({ id, name, sha256: digest, created: '2026-01-31T12:00:00.000Z', ...grants }, 'the test key');
  return { secret, entry };
}

/** A folder that goes with the test. */
export function folder(t: { after(end: () => void): void }): string {
  const path = mkdtempSync(join(tmpdir(), 'crystal-kv-keys-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A gateway that asks for keys, which are in a file. */
export async function setupKeyed(
  t: TestContext,
  script: Script,
  keys: readonly TestKey[],
  config: Record<string, unknown> = {},
  profiles: readonly string[] = [],
): Promise<Setup & { store: KeyStore; file: string }> {
  const file = join(folder(t), 'keys.json');
  const store = createFileStore(file);
  for (const { entry } of keys) await store.add(entry);
  return { ...(await setup(t, script, { keys: { store: 'file', file }, ...config }, profiles)), store, file };
}

export function bearer({ secret }: TestKey): { headers: Record<string, string> } {
  return { headers: { authorization: `Bearer ${secret}` } };
}
