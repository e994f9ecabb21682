import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { helpText, readArguments, runCommand } from '../../gateway/keys/command.ts';
import { keysSchema } from '../../gateway/keys/config.ts';
import { grantsShape, KeyError } from '../../gateway/keys/entry.ts';
import { chat } from '../gateway/harness.ts';
import { json } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';
import { folder, setupKeyed } from './harness.ts';

const SCRIPT = fileURLToPath(new URL('../../scripts/keys.ts', import.meta.url));

const run = (file: string, ...args: string[]) =>
  new Promise<{ code: unknown; out: string; problem: string }>((resolve) => {
    const env = { CRYSTALKV_GATEWAY_KEYS_FILE: file, CRYSTALKV_GATEWAY_KEYS_STORE: 'file' };
    execFile(process.execPath, [SCRIPT, ...args], { env }, (error, out, problem) =>
      resolve({ code: error?.code ?? 0, out, problem }),
    );
  });

const refuses = (args: string[], pattern: RegExp) =>
  assert.throws(
    () => readArguments(args),
    (error: unknown) => error instanceof KeyError && pattern.test(error.message),
  );

describe('npm run keys', () => {
  it('creates a key that a running gateway takes at once, lists it without its secret, and revokes it', async (t) => {
    const { gateway, file, store } = await setupKeyed(t, json('{}'), []);
    const made = await run(file, 'create', 'team-a', '--models', 'm,n', '--priority', '5');
    assert.deepEqual([made.code, made.problem], [0, '']);
    const secret = made.out.split('\n')[0]!;
    assert.match(secret, /^ckv-[0-9a-f]{12}-[\w-]{43}$/);
    assert.ok(!readFileSync(file, 'utf8').includes(secret));

    const status = async () => {
      const response = await chat(gateway, { model: 'm' }, { headers: { authorization: `Bearer ${secret}` } });
      return response.status;
    };
    await until(async () => (await status()) === 200, 'the key works');
    const keys = keysSchema.parse({ store: 'file', file });
    const out = await runCommand({ kind: 'list', json: true }, store, keys);
    const [shown] = JSON.parse(out) as Record<string, unknown>[];
    assert.deepEqual([shown?.['name'], shown?.['models'], shown?.['priority']], ['team-a', ['m', 'n'], 5]);
    assert.ok(!('sha256' in shown!) && !out.includes(secret));
    const revoked = await runCommand({ kind: 'revoke', idOrName: 'team-a' }, store, keys);
    assert.match(revoked, /^revoked team-a \([0-9a-f]{12}\)/);
    await until(async () => (await status()) === 401, 'the key is refused');
  });

  it('says what cannot be done, and ends with 1', async (t) => {
    const file = join(folder(t), 'keys.json');
    const { code, problem } = await run(file, 'revoke', 'nobody');
    assert.equal(code, 1);
    assert.match(problem, /^keys: .*keys\.json has no key with the id or name nobody\n$/);
  });

  it('names what is wrong with its arguments', () => {
    refuses(['remove', 'x'], /unknown command "remove"; expected one of create, list, revoke/);
    refuses(['create'], /create needs a name/);
    refuses(['create', 'a', 'b'], /unexpected argument b/);
    refuses(['create', 'a', '--request-per-minute', '5'], /'--request-per-minute'/);
    refuses(['list', '--models', 'm'], /--models is only for create/);
  });

  it('helps, with every limit there is', () => {
    for (const grant of Object.keys(grantsShape))
      assert.ok(helpText().includes(`--${grant.replaceAll('_', '-')} `), grant);
    assert.equal(readArguments(['--help']).command.kind, 'help');
    assert.equal(readArguments([]).command.kind, 'help');
  });
});
