import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { startGateway } from './harness.ts';
import { run } from './program.ts';
import { createUpstream, json } from './upstream.ts';

/** Checks a file; gives the exit code, and what was printed. */
async function check(t: TestContext, text: string, env: Record<string, string> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-check-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'crystal-kv.yaml');
  writeFileSync(file, text);
  const program = await run(t, env, ['--check', '--config', file]);
  return { code: await program.ended(), output: program.output() };
}

describe('--check', () => {
  it('says that a file can be used, prints what would be, and opens no port', async (t) => {
    // Listening on this one, or asking this backend, would be seen.
    const taken = await createUpstream(json('{}'));
    t.after(() => taken.close());
    const connections: unknown[] = [];
    taken.server.on('connection', (socket) => connections.push(socket));
    const { code, output } = await check(
      t,
      `gateway: { port: ${taken.port}, workers: 2, backends: [{ url: ${taken.url}, apiKey: very-secret }] }`,
      { CRYSTALKV_GATEWAY_DRAIN_MS: '1234' },
    );
    assert.match(output, /^gateway: configuration is valid$/m);
    assert.equal(code, 0);
    const printed = JSON.parse(output.slice(output.indexOf('{'), output.lastIndexOf('}') + 1)) as {
      gateway: { port: number; drain_ms: number; workers: number };
    };
    const { port, drain_ms, workers } = printed.gateway;
    assert.deepEqual([port, drain_ms, workers], [taken.port, 1234, 2]);
    assert.ok(!output.includes('very-secret'));
    assert.equal(connections.length, 0);
  });

  it('names every bad value with its bounds', async (t) => {
    const { code, output } = await check(
      t,
      'gateway: { port: 70000, timeouts: { connect_ms: 5 }, balance: { rule: random } }',
      { CRYSTALKV_GATEWAY_WORKERS: '257' },
    );
    assert.equal(code, 2);
    for (const message of [
      /gateway\.port is 70000: .*0.*65535/,
      /gateway\.timeouts\.connect_ms is 5: .*50.*60000/,
      /gateway\.balance\.rule is "random": .*least_outstanding.*prefix_affinity.*kv_headroom/,
      /gateway\.workers is 257: .*1.*256.*\(from CRYSTALKV_GATEWAY_WORKERS\)/,
    ]) {
      assert.match(output, message);
    }
    assert.doesNotMatch(output, /is valid/);
  });

  for (const [what, text, message] of [
    ['an option that there is not', 'gateway: { prot: 1 }', /prot/],
    ['what is no YAML', 'gateway: {', /crystal-kv\.yaml/],
    ['a certificate that is not there', 'gateway: { tls: { cert: /nowhere.pem, key: /nowhere.key } }', /nowhere\.pem/],
  ] as const) {
    it(`refuses ${what}`, async (t) => {
      const { code, output } = await check(t, text);
      assert.equal(code, 2);
      assert.match(output, message);
      assert.doesNotMatch(output, /is valid/);
    });
  }

  for (const [what, keys] of [
    ['keys that are no JSON', '{'],
    ['a key with an option that there is not', '{"keys": [{"id": "000000000000", "bogus": 1}]}'],
  ] as const) {
    it(`refuses ${what}, as the start does`, async (t) => {
      const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-check-'));
      t.after(() => rmSync(folder, { recursive: true, force: true }));
      const file = join(folder, 'keys.json');
      writeFileSync(file, keys);
      const text = `gateway: { port: 0, keys: { store: file, file: ${file} }, backends: [{ url: "http://127.0.0.1:1" }] }`;
      const { code, output } = await check(t, text);
      assert.equal(code, 2);
      assert.match(output, /keys\.json/);
      await assert.rejects(
        startGateway({ keys: { store: 'file', file }, backends: ['http://127.0.0.1:1'] }),
        /keys\.json/,
      );
    });
  }

  it('refuses an authority of the policy services that is none, as the start does', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-check-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const file = join(folder, 'ca.pem');
    for (const content of [undefined, 'no certificate']) {
      if (content !== undefined) writeFileSync(file, content);
      const { code, output } = await check(t, `gateway: { policy_ca: ${file} }`);
      assert.equal(code, 2);
      assert.match(output, /policy_ca: cannot use .*ca\.pem/);
      await assert.rejects(startGateway({ policy_ca: file }), /policy_ca/);
    }
  });
});
