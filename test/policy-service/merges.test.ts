import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import { Capability, type Merge, Mode, Reject } from '../../proto/gen/crystalkv/v1/policy.ts';
import { masses, metric, row, type ScriptedEngine, scriptedEngines, started, startService } from './scripted-engine.ts';

const CAPABILITIES = [Capability.CAPABILITY_EVICT, Capability.CAPABILITY_PROBE, Capability.CAPABILITY_MERGE];
const merging = { policy: 'window', merge: true, controller: { type: 'fixed', budget_tokens: 96 } };
const profiles = {
  merging,
  probing: { ...merging, policy: 'crystal' },
  pressure: {
    policy: 'window',
    merge: true,
    controller: { type: 'pressure', merge_floor_tokens: 16, merge_floor_share: 0 },
  },
};
/** Engines keep tokens by the rule that they know. */
const merge = (into: number[], from: number[]): Merge => ({ into, from, rule: undefined });
const asked = (profile: string, mode: Mode = Mode.MODE_UNSPECIFIED) => ({ options: { profile, mode } });

// A prompt of 32 tokens in blocks of 16, the newest 32 tokens protected: at 128 tokens blocks 2 to 5 may be merged.
suite('merges of an attached engine', () => {
  let server: PolicyServer;
  let engine: ScriptedEngine;
  const another = scriptedEngines(() => server);

  before(async () => {
    server = await startService({ default_profile: 'merging' }, profiles);
  });
  after(() => server.close());

  const greet = (change = {}) => engine.greet({ capabilities: CAPABILITIES, ...change });

  test('are asked for in place of evictions, over all blocks that may leave, and not twice', async () => {
    engine = another();
    await greet();
    engine.start(started(1));
    assert.deepEqual((await engine.step(1, [row(1, 127)])).requests, []);
    const plan = await engine.step(2, [row(1, 128)]);
    assert.deepEqual(plan.requests, [
      {
        handle: 1,
        epoch: 0,
        evict: [],
        probe: false,
        releaseThinking: false,
        merges: [merge([3, 4, 5], [2])],
      },
    ]);
    assert.deepEqual((await engine.step(3, [row(1, 129)])).requests, []);
    engine.obey(plan);
    const next = await engine.step(4, [row(1, 144)]);
    assert.deepEqual(next.requests[0]?.merges, [merge([4, 5, 6], [3])]);
  });

  test('leave the masses with one column for each block that is left', async () => {
    engine = another();
    await greet();
    engine.start(started(1));
    engine.obey(await engine.step(1, [row(1, 128)]));
    const before = await metric(server, 'crystalkv_measured_steps_total');
    await engine.step(2, [row(1, 129, { masses: masses(8, [2]) })]);
    assert.equal(await metric(server, 'crystalkv_measured_steps_total'), before + 1);
    const { keep, residentBlocks } = await stateOf('request-1');
    assert.deepEqual([[...keep], residentBlocks], [[0b1111_1011, 1], 8]);
  });

  test('are counted, and so are the blocks they free', async () => {
    engine = another();
    await greet({ engineId: 'counted' });
    engine.start(started(1));
    engine.obey(await engine.step(1, [row(1, 144)]));
    await engine.step(2, [row(1, 145)]);
    const labels = { engine: 'counted' };
    assert.equal(await metric(server, 'crystalkv_merges_total', labels), 1);
    assert.equal(await metric(server, 'crystalkv_blocks_evicted_total', labels), 2);
    assert.equal(await metric(server, 'crystalkv_plans_total', { ...labels, outcome: 'applied' }), 1);
  });

  test('that were refused free nothing; the blocks in their way are left out', async () => {
    engine = another();
    await greet();
    engine.start(started(1));
    const plan = await engine.step(1, [row(1, 128)]);
    engine.ack(plan, [{ rejected: [{ reason: Reject.REJECT_SHARED, blocks: [3] }] }]);
    const next = await engine.step(2, [row(1, 129)]);
    assert.deepEqual(next.requests[0]?.merges, [merge([4, 5], [2])]);
  });

  test('that name a hole learn of it', async () => {
    engine = another();
    await greet();
    engine.start(started(1));
    const plan = await engine.step(1, [row(1, 144)]);
    assert.deepEqual(plan.requests[0]?.merges, [merge([4, 5, 6], [2, 3])]);
    engine.ack(plan, [{ rejected: [{ reason: Reject.REJECT_NOT_RESIDENT, blocks: [4] }] }]);
    const next = await engine.step(2, [row(1, 145)]);
    assert.deepEqual(next.requests[0]?.merges, [merge([3, 5, 6], [2])]);
  });

  test('begin anew after a preemption', async () => {
    engine = another();
    await greet();
    engine.start(started(1));
    engine.obey(await engine.step(1, [row(1, 144)]));
    engine.send({ $case: 'preempted', value: { handle: 1, epoch: 1 } });
    const plan = await engine.step(2, [row(1, 144, { epoch: 1 })]);
    assert.deepEqual(
      plan.requests.map(({ epoch, merges }) => ({ epoch, merges })),
      [{ epoch: 1, merges: [merge([4, 5, 6], [2, 3])] }],
    );
  });

  test('are evictions where there is one block only', async () => {
    engine = another();
    await greet();
    engine.start(started(1, { promptTokens: 80, options: { profile: '', mode: 0, budgetTokens: 32 } }));
    const plan = await engine.step(1, [row(1, 128)]);
    assert.deepEqual(plan.requests[0]?.evict, [5]);
    assert.deepEqual(plan.requests[0]?.merges, []);
  });

  test('are not asked of an engine that cannot, nor in shadow mode', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1));
    assert.deepEqual((await engine.step(1, [row(1, 128)])).requests[0]?.evict, [2]);
    engine = another();
    await greet();
    engine.start(started(1, asked('merging', Mode.MODE_SHADOW)));
    assert.deepEqual((await engine.step(1, [row(1, 128)])).requests, []);
  });

  test('need no probes', async () => {
    engine = another();
    await greet();
    engine.start(started(1, asked('probing')));
    for (let step = 1; step < 200; step++) {
      const plan = await engine.step(step, [row(1, 32 + step)]);
      assert.ok(plan.requests.every(({ probe }) => !probe));
      engine.obey(plan);
    }
  });

  test('free what the pool needs under pressure, and keep a block', async () => {
    engine = another();
    await greet();
    engine.start(started(1, asked('pressure')));
    const plan = await engine.step(1, [row(1, 128)], { freeBlocks: 0 });
    assert.deepEqual(plan.requests[0]?.merges, [merge([5], [2, 3, 4])]);
  });

  test('look at 64 blocks at most, the newest that stay', async () => {
    engine = another();
    await greet();
    engine.start(started(1, { options: { profile: '', mode: 0, budgetTokens: 100 * 16 } }));
    const [merge] = (await engine.step(1, [row(1, 102 * 16)])).requests[0]!.merges;
    assert.deepEqual(merge?.from, [2]);
    assert.deepEqual(
      merge?.into,
      Array.from({ length: 63 }, (_, i) => 37 + i),
    );
  });

  function stateOf(crystalkvId: string) {
    return new Promise<{ keep: Uint8Array; residentBlocks: number }>((resolve, reject) => {
      engine.client.getRequest({ crystalkvId, choiceIndex: 0 }, (error, response) => {
        if (error !== null || response.request === undefined) reject(error);
        else resolve(response.request);
      });
    });
  }
});
