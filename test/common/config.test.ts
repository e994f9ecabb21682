import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { z } from 'zod';
import { ConfigError, loadSection, optionsOf, readConfigFile, withoutSecrets } from '../../common/config.ts';

const schema = z.strictObject({
  port: z.number().int().min(1).max(65535).default(8000).describe('where to listen'),
  size: z.number().int().min(0).default(5),
  token: z.string().min(8).optional().meta({ secret: true }),
  list: z.array(z.string()).default([]),
  limits: z.strictObject({ tokens: z.number().min(1).default(10) }).prefault({}),
  address: z.string().default('here').meta({ env: 'CRYSTALKV_ADDRESS' }),
});

const load = (file: unknown, env: Record<string, string> = {}) => loadSection('engine', schema, { engine: file }, env);

test('defaults hold, and the result is frozen to its depth', () => {
  const config = load(undefined);
  assert.deepEqual(config, { port: 8000, size: 5, list: [], limits: { tokens: 10 }, address: 'here' });
  assert.ok(Object.isFrozen(config.limits));
});

test('the environment overrides the file, with derived and with given names; 0 and the empty text are values', () => {
  const env = {
    CRYSTALKV_ENGINE_SIZE: '0',
    CRYSTALKV_ENGINE_LIMITS_TOKENS: '3',
    CRYSTALKV_ENGINE_LIST: '[a, b]',
    CRYSTALKV_ADDRESS: '',
  };
  const config = load({ port: 9, size: 7 }, env);
  assert.deepEqual(config, { port: 9, size: 0, list: ['a', 'b'], limits: { tokens: 3 }, address: '' });
});

test('a plain string from the environment stays as it is', () => {
  assert.equal(load({}, { CRYSTALKV_ENGINE_TOKEN: '1234567890' }).token, '1234567890');
});

test('a secret may come from a file that a variable names; nothing else may', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-secret-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'token');
  writeFileSync(file, 'from-a-file\n');
  assert.equal(load({}, { CRYSTALKV_ENGINE_TOKEN_FILE: file }).token, 'from-a-file');
  assert.equal(load({}, { CRYSTALKV_ADDRESS_FILE: file }).address, 'here');
  const both = { CRYSTALKV_ENGINE_TOKEN_FILE: file, CRYSTALKV_ENGINE_TOKEN: 'from-a-variable' };
  assert.throws(() => load({}, both), /CRYSTALKV_ENGINE_TOKEN and CRYSTALKV_ENGINE_TOKEN_FILE are both set/);
  assert.throws(() => load({}, { CRYSTALKV_ENGINE_TOKEN_FILE: `${file}-not` }), ConfigError);
  writeFileSync(file, 'short');
  assert.throws(() => load({}, { CRYSTALKV_ENGINE_TOKEN_FILE: file }), /from CRYSTALKV_ENGINE_TOKEN_FILE/);
});

test('an error names option, value, bounds and where the value came from', () => {
  assert.throws(
    () => load({ limits: { tokens: 0 } }, { CRYSTALKV_ENGINE_PORT: '99999' }),
    (error: Error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, /^engine\.port is 99999: .*65535.*\(from CRYSTALKV_ENGINE_PORT\)$/m);
      assert.match(error.message, /^engine\.limits\.tokens is 0: .*1$/m);
      return true;
    },
  );
});

test('an unknown option is refused by name', () => {
  assert.throws(() => load({ prot: 1 }), /engine: .*"prot"/);
});

test('a misspelt variable is refused by name; variables of other sections and programs are not', () => {
  assert.throws(
    () => load({}, { CRYSTALKV_ENGINE_PROT: '1', CRYSTALKV_ENGINE_PORT: '9' }),
    /^ConfigError: CRYSTALKV_ENGINE_PROT: engine has no such option; --help lists all of them$/,
  );
  const others = { CRYSTALKV_GATEWAY_PORT: '1', CRYSTALKV_ENGINE_ID: 'vllm', CRYSTALKV_LOCKSTEP: '1' };
  assert.equal(load({}, others).port, 8000);
});

test('an error prints neither the password in a URL nor what stands under an unknown key', () => {
  const urls = ['redis://me:hunter2@host:1/0?a=b@c', 'http://host/a@b'];
  assert.throws(
    () => load({ list: [...urls, 7], tokn: 'hunter2', limits: { tokens: 'https://u:hunter2@h' } }),
    (error: Error) => {
      assert.doesNotMatch(error.message, /hunter2/);
      assert.match(error.message, /Unrecognized key: "tokn"/);
      assert.match(error.message, /https:\/\/\.\.\.@h/);
      return true;
    },
  );
  const shown = withoutSecrets({ list: urls }, optionsOf('engine', schema));
  assert.deepEqual(shown, { list: ['redis://...@host:1/0?a=b@c', 'http://host/a@b'] });
});

test('a secret is never printed: not in an error, not in what is shown', () => {
  for (const file of [{ token: 'geheim' }, { token: 'geheim', prot: 1 }]) {
    assert.throws(
      () => load(file),
      (error: Error) => !error.message.includes('geheim'),
    );
  }
  const shown = withoutSecrets(load({ token: 'geheimnis' }), optionsOf('engine', schema));
  assert.ok(!JSON.stringify(shown).includes('geheim'));
});

test('a file that is missing, no YAML, no mapping, or has an unknown section is refused by name', () => {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-config-'));
  const path = join(folder, 'c.yaml');
  try {
    assert.throws(() => readConfigFile(path), /cannot read the config file .*c\.yaml/);
    for (const [text, message] of [
      ['a: [1', /not valid YAML/],
      ['- 1', /must hold a mapping/],
      ['gatewy: {}', /unknown section gatewy; known: gateway, policy_service, engine, profiles/],
    ] as const) {
      writeFileSync(path, text);
      assert.throws(() => readConfigFile(path), message);
    }
    writeFileSync(path, '');
    assert.deepEqual(readConfigFile(path), {});
  } finally {
    rmSync(folder, { recursive: true });
  }
});
