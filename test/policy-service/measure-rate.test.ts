import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import { row, type ScriptedEngine, scriptedEngines, started, startService } from './scripted-engine.ts';
import { options } from './session-profiles.ts';

const PROFILES = {
  default: { policy: 'window', controller: { type: 'pressure' } },
  fixed: { policy: 'window', controller: { type: 'fixed', budget_tokens: 1024 } },
  full: { policy: 'full' },
};
const SELDOM = 50;
const OFTEN = 2;
/** Longer than the service waits before it believes in the calm. */
const MANY_STEPS = 200;

suite('measuring', () => {
  let server: PolicyServer;
  before(async () => {
    server = await startService({ measure_every: OFTEN, measure_every_idle: SELDOM }, PROFILES);
  });
  after(() => server.close());
  const connect = scriptedEngines(() => server);

  /** An engine with one request, told to measure seldom: nothing is expected of it yet. */
  async function idleEngine(profile: string): Promise<ScriptedEngine> {
    const engine = connect();
    const { measureEvery } = await engine.greet();
    assert.equal(measureEvery, SELDOM);
    engine.start(started(1, { promptTokens: 16, ...options(profile) }));
    await engine.step(1, [row(1, 100)]);
    return engine;
  }

  async function rateAt(engine: ScriptedEngine, step: number, tokens: number, freeBlocks: number): Promise<number> {
    engine.tell(step, [row(1, tokens)], { freeBlocks });
    const { measureEvery } = await engine.receive('configure');
    await engine.receive('plan');
    return measureEvery;
  }

  test('is frequent as soon as memory gets short, and seldom again when it has been free for a while', async () => {
    const engine = await idleEngine('default');
    assert.equal(await rateAt(engine, 2, 101, 20), OFTEN);
    let told: number | undefined;
    for (let step = 3; step < MANY_STEPS && told === undefined; step += 1) {
      engine.tell(step, [row(1, 100 + step)], { freeBlocks: 90 });
      const message = await engine.next();
      if (message.$case !== 'configure') continue;
      told = message.value.measureEvery;
    }
    assert.equal(told, SELDOM);
  });

  test('is frequent before a request reaches its budget', async () => {
    const engine = await idleEngine('fixed');
    await engine.step(2, [row(1, 600)]);
    assert.equal(await rateAt(engine, 3, 900, 90), OFTEN);
  });

  test('stays seldom for requests that lose nothing', async () => {
    const engine = await idleEngine('full');
    await engine.step(2, [row(1, 900)], { freeBlocks: 1 });
  });
});
