import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import { Mode } from '../../proto/gen/crystalkv/v1/policy.ts';
import { masses, metric, row, type ScriptedEngine, scriptedEngines, started, startService } from './scripted-engine.ts';
import { options, profiles } from './session-profiles.ts';

suite('what governs the requests of an attached engine', () => {
  let server: PolicyServer;
  let engine: ScriptedEngine;
  const another = scriptedEngines(() => server);

  before(async () => {
    const more = { full: { policy: 'full' }, releasing: { ...profiles.default, release_thinking: true } };
    server = await startService({}, { ...profiles, ...more });
  });
  after(() => server.close());

  test('is not asked to evict a request from a snapshot before it was measured on enough steps', async () => {
    engine = another();
    await engine.greet({ engineId: 'restarted' }, [started(1, { computedTokens: 160, evicted: [2] })]);
    for (let step = 1; step <= 2; step += 1) {
      const plan = await engine.step(step, [row(1, 160, { masses: masses(9, [3, 4]) })]);
      assert.deepEqual(plan.requests, [], `step ${step}`);
      assert.equal(await metric(server, 'crystalkv_cold_requests', { engine: 'restarted' }), 1);
    }
    const plan = await engine.step(3, [row(1, 160, { masses: masses(9, [3, 4]) })]);
    assert.deepEqual(plan.requests[0]?.evict, [3, 4]);
  });

  test('keeps everything in shadow mode, and regret and missed mass are exact', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1, options('shadow')));
    // Ten blocks, two of them too many: 2 and 3 would have gone.
    assert.deepEqual((await engine.step(1, [row(1, 144, { masses: masses(9, [5]) })])).requests, []);
    // Block 2 is read, with half of the attention.
    assert.deepEqual((await engine.step(2, [row(1, 144, { masses: masses(9, [2, 5]) })])).requests, []);
    await engine.step(3, [row(1, 144, { masses: masses(9, [5]) })]);
    assert.equal(await metric(server, 'crystalkv_regret_ratio', { policy: 'window' }), 0.5);
    assert.equal(await metric(server, 'crystalkv_missed_mass_ratio', { policy: 'window' }), 0.25);
  });

  test('regrets a block once, however often it is read, and again when a preemption has it evicted again', async () => {
    engine = another();
    await engine.greet({ engineId: 'regretting' });
    engine.start(started(1, options('shadow')));
    await engine.step(1, [row(1, 144, { masses: masses(9, [5]) })]);
    for (const step of [2, 3, 4]) await engine.step(step, [row(1, 144, { masses: masses(9, [2, 5]) })]);
    const labels = { engine: 'regretting' };
    assert.equal(await metric(server, 'crystalkv_shadow_regretted_blocks_total', labels), 1);
    assert.equal(await metric(server, 'crystalkv_shadow_steps_total', labels), 3);
    engine.send({ $case: 'preempted', value: { handle: 1, epoch: 1 } });
    for (const step of [5, 6]) await engine.step(step, [row(1, 144, { epoch: 1, masses: masses(9, [2, 5]) })]);
    assert.equal(await metric(server, 'crystalkv_shadow_regretted_blocks_total', labels), 2);
  });

  test('takes the mode of the request before that of its profile', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1, options('default', Mode.MODE_OFF)));
    engine.start(started(2, options('shadow', Mode.MODE_ENFORCE)));
    const plan = await engine.step(1, [row(1, 128), row(2, 128)]);
    assert.deepEqual(
      plan.requests.map(({ handle }) => handle),
      [2],
    );
  });

  test("takes the budget of the request before the profile's, within bounds", async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1, { options: { profile: 'pressure', mode: 0, budgetTokens: 48 } }));
    engine.start(started(2, { options: { profile: 'pressure', mode: 0, budgetTokens: 0 } }));
    const plan = await engine.step(1, [row(1, 112), row(2, 112)]);
    assert.deepEqual(
      plan.requests.map(({ evict }) => evict),
      [
        [2, 3, 4],
        [2, 3, 4],
      ],
    );
    // The lower bound of 16 tokens is one block: with the tail and two newest blocks there is nothing more to give.
    engine.obey(plan);
    assert.deepEqual((await engine.step(2, [row(1, 112), row(2, 112)])).requests, []);
  });

  test('gives blocks of all requests when memory is short', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1, options('pressure')));
    engine.start(started(2, options('pressure')));
    const calm = await engine.step(1, [row(1, 192), row(2, 352)], { freeBlocks: 10 });
    assert.deepEqual(calm.requests, []);
    const plan = await engine.step(2, [row(1, 192), row(2, 352)], { freeBlocks: 9 });
    const given = plan.requests.map(({ evict }) => evict.length);
    assert.equal(given[0]! + given[1]!, 11);
    assert.ok(given[1]! > given[0]! && given[0]! > 0, `${given}`);
    // They are under way: the same shortage asks for nothing more.
    assert.deepEqual((await engine.step(3, [row(1, 192), row(2, 352)], { freeBlocks: 9 })).requests, []);
  });

  test('is told once that thinking can be released, by default where nothing is ever evicted', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1, options('full')));
    engine.start(started(2, options('full', Mode.MODE_OFF)));
    engine.start(started(3, options('releasing')));
    engine.start(started(4, options('default')));
    const plan = await engine.step(1, [row(1, 64), row(2, 64), row(3, 64), row(4, 64)]);
    assert.deepEqual(
      plan.requests.map(({ handle, releaseThinking }) => [handle, releaseThinking]),
      [
        [1, true],
        [3, true],
      ],
    );
    assert.deepEqual((await engine.step(2, [row(1, 65), row(3, 65)])).requests, []);
  });

  test('gets the default profile for an unknown one, and that is counted', async () => {
    engine = another();
    const before = await metric(server, 'crystalkv_unknown_profiles_total');
    await engine.greet();
    engine.start(started(1, options('no-such-profile')));
    assert.deepEqual((await engine.step(1, [row(1, 128)])).requests[0]?.evict, [2]);
    assert.equal(await metric(server, 'crystalkv_unknown_profiles_total'), before + 1);
  });
});
