import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { ConfigError, loadSection } from '../../common/config.ts';
import { policyServiceSchema, settingsOf } from '../../policy-service/config.ts';
import { POLICY_NAMES } from '../../policy-service/policies/registry.ts';
import { governanceOf } from '../../policy-service/request/governance.ts';
import { profilesSchema } from '../../policy-service/request/profiles.ts';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import { engineFor, metric, row, serviceFor, started, testConfig } from './scripted-engine.ts';

const profiles = { default: { policy: 'window', controller: { type: 'fixed', budget_tokens: 96 } } };

test('without profiles in the file there is a default one and one for each policy', () => {
  const settings = settingsOf(testConfig());
  assert.equal(settings.defaultProfile.policy, 'crystal');
  assert.equal(settings.defaultProfile.controller.type, 'pressure');
  for (const name of POLICY_NAMES) assert.equal(settings.profiles.get(name)?.policy, name);
});

test('profiles of the file replace the built-in ones', () => {
  assert.deepEqual([...settingsOf(testConfig({}, profiles)).profiles.keys()], ['default']);
});

test('a default profile that does not exist is refused, and the known ones are named', () => {
  assert.throws(
    () => settingsOf(testConfig({ default_profile: 'fast' }, profiles)),
    /default_profile is "fast": no such profile; known: default/,
  );
});

test('a wrong value is refused with its option and its bounds', () => {
  const load = (profile: object) => () => loadSection('profiles', profilesSchema, { profiles: { one: profile } }, {});
  assert.throws(load({ policy: 'lru' }), /profiles.one.policy is "lru": .*full.*crystal/);
  assert.throws(load({ policy: 'crf', hits: { rule: 'mass', share: 2 } }), /profiles.one.hits.share is 2: .*<=\s?1/);
  assert.throws(load({ policy: 'crf', budget: 2 }), ConfigError);
  assert.throws(
    load({ policy: 'crf', controller: { type: 'pressure', low_free_share: 0.5, high_free_share: 0.2 } }),
    /low_free_share is 0.5: low_free_share must not be above high_free_share/,
  );
  assert.throws(
    load({ policy: 'crf', controller: { type: 'lru' } }),
    /controller.type.*(fixed|pressure|ratio|adaptive)/,
  );
  assert.throws(load({ policy: 'crf', controller: { type: 'ratio', share: 0 } }), /controller.share is 0: .*>\s?0/);
  assert.throws(load({ policy: 'crf', controller: { type: 'adaptive', damping: 0.5 } }), /damping is 0.5: .*<=\s?0.3/);
  assert.throws(load({ policy: 'crf', canary_share: 1.5 }), /canary_share is 1.5: .*<=\s?1/);
});

test('CRYSTALKV_ENABLED switches evictions off before anything else', () => {
  for (const [text, enabled] of [
    ['0', false],
    ['false', false],
    ['1', true],
  ] as const) {
    const loaded = loadSection('policy_service', policyServiceSchema, {}, { CRYSTALKV_ENABLED: text });
    assert.equal(loaded.enabled, enabled);
  }
  assert.throws(
    () => loadSection('policy_service', policyServiceSchema, {}, { CRYSTALKV_ENABLED: 'maybe' }),
    /enabled is "maybe": expected true, false, 1 or 0 \(from CRYSTALKV_ENABLED\)/,
  );
});

test('while the service is off every request is in mode off', () => {
  const settings = settingsOf(testConfig({ enabled: false }, profiles));
  const enforcing = { options: { profile: '', mode: 1 as const }, canaryKey: 'a' };
  assert.equal(governanceOf(enforcing, settings).mode, 'off');
  assert.equal(governanceOf(enforcing, settingsOf(testConfig({}, profiles))).mode, 'enforce');
});

test('the budget of a request is held within the bounds of the service', () => {
  const limits = { min_budget_tokens: 32, max_budget_tokens: 128 };
  const settings = settingsOf(testConfig({ limits }, { ...profiles, pool: { policy: 'window' } }));
  const controllerOf = (profile: string, budgetTokens?: number) => {
    const options = { profile, mode: 0 as const, ...(budgetTokens === undefined ? {} : { budgetTokens }) };
    return governanceOf({ options, canaryKey: 'a' }, settings).controller;
  };
  assert.deepEqual(controllerOf('pool', 0), { type: 'fixed', budgetTokens: 32 });
  assert.deepEqual(controllerOf('pool', 100), { type: 'fixed', budgetTokens: 100 });
  assert.deepEqual(controllerOf('', 1000), { type: 'fixed', budgetTokens: 128 });
  assert.deepEqual(controllerOf(''), { type: 'fixed', budgetTokens: 96 });
  assert.equal(controllerOf('pool').type, 'pressure');
});

test('switching the service off stops evictions at once, whatever requests ask for, and on again', async (context) => {
  const server = await serviceFor(context, {}, profiles);
  const engine = engineFor(context, server.address);
  await engine.greet();
  engine.start(started(1, { options: { profile: '', mode: 1 } }));
  engine.obey(await engine.step(1, [row(1, 128)]));
  server.reload(testConfig({ enabled: false }, profiles));
  assert.deepEqual((await engine.step(2, [row(1, 144)])).requests, []);
  server.reload(testConfig({}, profiles));
  assert.deepEqual((await engine.step(3, [row(1, 145)])).requests[0]?.evict, [3]);
});

test('a changed mode and a changed budget hold for running requests', async (context) => {
  const server = await serviceFor(context, {}, profiles);
  const engine = engineFor(context, server.address);
  await engine.greet();
  engine.start(started(1));
  server.reload(testConfig({}, { default: { ...profiles.default, mode: 'off' } }));
  assert.deepEqual((await engine.step(1, [row(1, 128)])).requests, []);
  const smaller = { policy: 'window', controller: { type: 'fixed', budget_tokens: 64 } };
  server.reload(testConfig({}, { default: smaller }));
  assert.deepEqual((await engine.step(2, [row(1, 128)])).requests[0]?.evict, [2, 3, 4]);
});

test('a reload that does not fit together changes nothing', async (context) => {
  const server = await serviceFor(context, {}, profiles);
  assert.throws(() => server.reload(testConfig({ default_profile: 'gone', enabled: false }, profiles)), ConfigError);
  const engine = engineFor(context, server.address);
  await engine.greet();
  engine.start(started(1));
  assert.deepEqual((await engine.step(1, [row(1, 128)])).requests[0]?.evict, [2]);
});

test('the program reads its file again on SIGHUP, keeps the old on a bad one, and ends on SIGTERM', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'policy-service-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'crystal-kv.yaml');
  const write = (enabled: string) =>
    writeFileSync(
      file,
      `policy_service: { port: 0, metrics_port: 0, measure_every_idle: 8, enabled: ${enabled} }\nprofiles: ${JSON.stringify(profiles)}\n`,
    );
  write('true');
  const main = new URL('../../policy-service/main.ts', import.meta.url).pathname;
  const child = spawn(process.execPath, [main, '--config', file], { stdio: ['ignore', 'pipe', 'inherit'] });
  context.after(() => child.kill('SIGKILL'));
  const log = linesOf(child);
  const ready = await log.until('policy service is ready');
  const server = { metricsUrl: String(ready['metrics']) } as PolicyServer;
  const engine = engineFor(context, String(ready['address']));
  await engine.greet();
  engine.start(started(1));
  assert.deepEqual((await engine.step(1, [row(1, 128)])).requests[0]?.evict, [2]);

  write('false');
  child.kill('SIGHUP');
  await log.until('configuration reloaded');
  assert.deepEqual((await engine.step(2, [row(1, 160)])).requests, []);

  write('perhaps');
  child.kill('SIGHUP');
  const refused = await log.until('cannot reload the configuration; the old one stays in use');
  assert.match(String(refused['reason']), /policy_service.enabled is "perhaps"/);
  assert.deepEqual((await engine.step(3, [row(1, 161)])).requests, []);
  assert.equal(await metric(server, 'crystalkv_config_reloads_total', { outcome: 'refused' }), 1);

  child.kill('SIGTERM');
  const code = await new Promise((resolve) => child.on('exit', resolve));
  assert.equal(code, 0);
});

/** The program's log, line by line. */
function linesOf(child: ChildProcess) {
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  return {
    async until(message: string): Promise<Record<string, unknown>> {
      for (;;) {
        const { value, done } = await lines.next();
        if (done) throw new Error(`the program ended before it said: ${message}`);
        const line = JSON.parse(value) as Record<string, unknown>;
        if (line['msg'] === message) return line;
      }
    },
  };
}
