import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import { Reject } from '../../proto/gen/crystalkv/v1/policy.ts';
import { until } from '../support/until.ts';
import { masses, metric, row, type ScriptedEngine, scriptedEngines, started, startService } from './scripted-engine.ts';
import { options, profiles } from './session-profiles.ts';

suite('evictions of an attached engine', () => {
  let server: PolicyServer;
  let engine: ScriptedEngine;
  const another = scriptedEngines(() => server);

  before(async () => {
    server = await startService({}, profiles);
  });
  after(() => server.close());

  test('is asked for a block when the next token would exceed the budget, and not twice', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1));
    assert.deepEqual((await engine.step(1, [row(1, 127)])).requests, []);
    const first = await engine.step(2, [row(1, 128)]);
    assert.deepEqual(first.requests[0]?.evict, [2]);
    // Not acknowledged yet: the block is under way and counts as gone.
    assert.deepEqual((await engine.step(3, [row(1, 129)])).requests, []);
    engine.obey(first);
    assert.deepEqual((await engine.step(4, [row(1, 143)])).requests, []);
    assert.deepEqual((await engine.step(5, [row(1, 144)])).requests[0]?.evict, [3]);
  });

  test('gets other blocks named in place of those that it refused', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1));
    const plan = await engine.step(1, [row(1, 160)]);
    assert.deepEqual(plan.requests[0]?.evict, [2, 3, 4]);
    engine.ack(plan, [{ evicted: [3], rejected: [{ reason: Reject.REJECT_SHARED, blocks: [2, 4] }] }]);
    const next = await engine.step(2, [row(1, 161)]);
    assert.deepEqual(next.requests[0]?.evict, [5, 6]);
    assert.equal(await metric(server, 'crystalkv_rejected_blocks_total', { reason: 'shared' }), 2);
  });

  test('is believed when it calls a block a hole', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1, options('crf')));
    const plan = await engine.step(1, [row(1, 128)]);
    engine.ack(plan, [{ rejected: [{ reason: Reject.REJECT_NOT_RESIDENT, blocks: [2] }] }]);
    const before = await metric(server, 'crystalkv_measured_steps_total');
    assert.deepEqual((await engine.step(2, [row(1, 129, { masses: masses(8, [0, 5]) })])).requests, []);
    assert.equal(await metric(server, 'crystalkv_measured_steps_total'), before + 1);
  });

  test('gets what it did counted', async () => {
    engine = another();
    const labels = { engine: 'counted' };
    await engine.greet({ engineId: 'counted' });
    engine.start(started(1));
    engine.obey(await engine.step(1, [row(1, 144)]));
    await engine.step(2, [row(1, 145)]);
    assert.equal(await metric(server, 'crystalkv_blocks_evicted_total', { ...labels, phase: 'thinking' }), 2);
    assert.equal(await metric(server, 'crystalkv_bytes_freed_total', labels), 2000);
    assert.equal(await metric(server, 'crystalkv_plans_total', { ...labels, outcome: 'applied' }), 1);
    assert.equal(await metric(server, 'crystalkv_blocks_resident', labels), 8);
    assert.equal(await metric(server, 'crystalkv_blocks_full', labels), 10);
    assert.equal(await metric(server, 'crystalkv_stream_up', labels), 1);
    engine.close();
    await until(async () => (await metric(server, 'crystalkv_stream_up', labels)) === 0, 'the engine has left');
  });

  test('is spared after a plan that it passed over: those blocks are asked for again', async () => {
    engine = another();
    await engine.greet({ engineId: 'forgetful' });
    engine.start(started(1));
    const first = await engine.step(1, [row(1, 128)]);
    assert.deepEqual(first.requests[0]?.evict, [2]);
    const second = await engine.step(2, [row(1, 144)]);
    assert.deepEqual(second.requests[0]?.evict, [3]);
    engine.obey(second);
    assert.deepEqual((await engine.step(3, [row(1, 145)])).requests[0]?.evict, [2]);
    assert.equal(await metric(server, 'crystalkv_plans_total', { engine: 'forgetful', outcome: 'lost' }), 1);
  });

  test('starts from nothing gone after a preemption, and answers to old plans change nothing', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1));
    const old = await engine.step(1, [row(1, 128)]);
    engine.send({ $case: 'preempted', value: { handle: 1, epoch: 1 } });
    engine.ack(old, [{ epoch: 0, rejected: [{ reason: Reject.REJECT_STALE_EPOCH, blocks: [] }] }]);
    const plan = await engine.step(2, [row(1, 128, { epoch: 1 })]);
    assert.deepEqual(plan.requests, [
      { handle: 1, epoch: 1, evict: [2], probe: false, releaseThinking: false, merges: [], shadow: undefined },
    ]);
    // A row of the old epoch is dropped.
    assert.deepEqual((await engine.step(3, [row(1, 400, { epoch: 0 })])).requests, []);
  });

  test('makes no holes by an answer from before a preemption', async () => {
    engine = another();
    await engine.greet({ engineId: 'stale' });
    engine.start(started(1));
    const old = await engine.step(1, [row(1, 128)]);
    engine.send({ $case: 'preempted', value: { handle: 1, epoch: 1 } });
    assert.deepEqual((await engine.step(2, [row(1, 100, { epoch: 1 })])).requests, []);
    engine.ack(old, [{ epoch: 0, evicted: [2] }]);
    assert.deepEqual((await engine.step(3, [row(1, 128, { epoch: 1 })])).requests[0]?.evict, [2]);
    assert.equal(await metric(server, 'crystalkv_blocks_evicted_total', { engine: 'stale' }), 0);
  });

  test('is left alone for a block when it refused a request as a whole', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1));
    const plan = await engine.step(1, [row(1, 128)]);
    engine.ack(plan, [{ rejected: [{ reason: Reject.REJECT_DISABLED, blocks: [] }] }]);
    assert.deepEqual((await engine.step(2, [row(1, 129)])).requests, []);
    assert.deepEqual((await engine.step(3, [row(1, 144)])).requests[0]?.evict, [2, 3]);
    assert.equal(await metric(server, 'crystalkv_rejected_blocks_total', { reason: 'disabled' }), 1);
  });

  test('is asked for blocks at once after a preemption, though it refused the request before', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1));
    const plan = await engine.step(1, [row(1, 128)]);
    engine.ack(plan, [{ rejected: [{ reason: Reject.REJECT_DISABLED, blocks: [] }] }]);
    engine.send({ $case: 'preempted', value: { handle: 1, epoch: 1 } });
    assert.deepEqual((await engine.step(2, [row(1, 129, { epoch: 1 })])).requests[0]?.evict, [2]);
  });

  test('has a request forgotten that it does not know any more', async () => {
    engine = another();
    await engine.greet({ engineId: 'amnesic' });
    engine.start(started(1));
    const plan = await engine.step(1, [row(1, 128)]);
    engine.ack(plan, [{ rejected: [{ reason: Reject.REJECT_UNKNOWN_REQUEST, blocks: [] }] }]);
    await engine.step(2, []);
    assert.equal(await metric(server, 'crystalkv_requests', { engine: 'amnesic' }), 0);
  });
});
