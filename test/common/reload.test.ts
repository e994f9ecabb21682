import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { z } from 'zod';
import { fixedOptions, takeOver } from '../../common/reload.ts';
import { gatewaySchema } from '../../gateway/config.ts';
import { policyServiceSchema } from '../../policy-service/config.ts';
import { until } from '../../scripts/until.ts';
import { startProgram } from '../support/program.ts';

const RELOADED = 'configuration reloaded';
const REFUSED = 'cannot reload the configuration; the old one stays in use';

const schema = z.strictObject({
  port: z.int().default(1).meta({ fixed: true }),
  level: z.string().default('info'),
  tls: z.strictObject({ cert: z.string().optional(), key: z.string().optional() }).prefault({}).meta({ fixed: true }),
  part: z.strictObject({ fixed: z.int().default(1).meta({ fixed: true }), free: z.int().default(1) }).prefault({}),
});

describe('what a running program takes of a changed section', () => {
  const take = (before: object, after: object) =>
    takeOver('gateway', schema, schema.parse(before), schema.parse(after));

  it('leaves what is fixed as it was, and names it', () => {
    const { config, needRestart } = take(
      { tls: { cert: 'a' } },
      { port: 2, level: 'warn', tls: { key: 'b' }, part: { fixed: 2, free: 2 } },
    );
    assert.deepEqual(needRestart, ['port', 'tls.cert', 'tls.key', 'part.fixed']);
    assert.equal(config.port, 1);
    assert.equal(config.level, 'warn');
    assert.deepEqual([config.tls.cert, config.tls.key], ['a', undefined]);
    assert.deepEqual(config.part, { fixed: 1, free: 2 });
    assert.throws(() => Object.assign(config.part, { free: 3 }), TypeError);
  });

  it('names nothing when nothing fixed has changed', () => {
    assert.deepEqual(take({ port: 2 }, { port: 2, level: 'warn' }).needRestart, []);
  });

  it('is listed by groups where all of a group is fixed', () => {
    assert.deepEqual(fixedOptions('gateway', schema), ['port', 'tls', 'part.fixed']);
  });
});

describe('the guides', () => {
  /** The options that a guide names in its sentence about restarts. */
  const named = (file: string) => {
    const text = readFileSync(new URL(`../../docs/${file}`, import.meta.url), 'utf8');
    const [, list = ''] = /These options need a restart:((?:[^.]|\.\w)*)\./.exec(text) ?? [];
    return [...list.matchAll(/`([\w.]+)`/g)].map(([, name]) => name).sort();
  };

  it('name every option that needs a restart, and no other', () => {
    assert.deepEqual(named('fleet.md'), fixedOptions('gateway', gatewaySchema).sort());
    assert.deepEqual(named('rollout.md'), fixedOptions('policy_service', policyServiceSchema).sort());
  });
});

/** Sends this process a SIGHUP when most of the program is still to be loaded. */
const HANG_UP_WHILE_LOADING = `data:text/javascript,${encodeURIComponent(`
import { registerHooks } from 'node:module';
registerHooks({
  load(url, context, next) {
    if (url.endsWith('/common/logger.ts')) process.kill(process.pid, 'SIGHUP');
    return next(url, context);
  },
});`)}`;

for (const part of ['gateway', 'policy-service'] as const) {
  const section = part === 'gateway' ? 'gateway: { port: 0' : 'policy_service: { port: 0, metrics_port: 0';
  const READY = part === 'gateway' ? 'listening' : 'policy service is ready';

  describe(`SIGHUP and the ${part}`, () => {
    /** A program with a file that `write` changes: options, and the profile `fast`. */
    async function start(t: TestContext, nodeArgs: string[] = []) {
      const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-reload-'));
      t.after(() => rmSync(folder, { recursive: true }));
      const file = join(folder, 'crystal-kv.yaml');
      const write = (options: string, fast: string) =>
        writeFileSync(file, `${section}${options} }\nprofiles: { default: { policy: crystal }, fast: ${fast} }\n`);
      write('', '{ policy: window }');
      const program = await startProgram(t, part, { args: ['--config', file], nodeArgs });
      return { program, write };
    }

    it('while it starts is kept until it runs', async (t) => {
      const { program } = await start(t, ['--import', HANG_UP_WHILE_LOADING]);
      await program.logged(READY);
      await program.logged(RELOADED);
      program.child.signal('SIGTERM');
      assert.equal(await program.ended(), 0);
    });

    it('takes a file or leaves it, and says what needs a restart', async (t) => {
      const { program, write } = await start(t);
      await program.logged(READY);
      const refusals = () => program.log().filter(({ msg }) => msg === REFUSED);
      for (const [count, broken] of ['{ policy: lru }', '{ policy: window, seed: -1 }', ''].entries()) {
        write('', broken);
        program.child.signal('SIGHUP');
        await until(() => refusals().length === count + 1, `a profile is refused that is: ${broken}`);
        assert.match(String(refusals().at(-1)?.['reason']), /^profiles\.fast/);
      }
      assert.ok(!program.log().some(({ msg }) => msg === RELOADED));
      write(', host: 127.0.0.2, log_level: debug', '{ policy: window }');
      program.child.signal('SIGHUP');
      await program.logged(RELOADED);
      assert.deepEqual((await program.logged('these options need a restart'))['options'], ['host']);
    });
  });
}
