import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { createLogger } from '../../common/logger.ts';
import { settingsOf } from '../../policy-service/config.ts';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import { createEngines } from '../../policy-service/session/engines.ts';
import { negotiate } from '../../policy-service/session/hello.ts';
import type { AttachResponse } from '../../proto/gen/crystalkv/v1/policy.ts';
import {
  hello,
  metric,
  row,
  type ScriptedEngine,
  scriptedEngines,
  started,
  startService,
  testConfig,
} from './scripted-engine.ts';
import { options, profiles } from './session-profiles.ts';

suite('the stream of an attached engine', () => {
  let server: PolicyServer;
  let engine: ScriptedEngine;
  const another = scriptedEngines(() => server);

  before(async () => {
    server = await startService({}, profiles);
  });
  after(() => server.close());

  test('gets a plan for every step in lockstep, also an empty one', async () => {
    engine = another();
    await engine.greet();
    assert.deepEqual((await engine.step(1, [])).requests, []);
    engine.start(started(1));
    const plan = await engine.step(2, [row(1, 48)]);
    assert.deepEqual(plan.requests, []);
    assert.equal(plan.sequence, 2n);
  });

  test('is told what to measure', async () => {
    engine = another();
    engine.send({ $case: 'hello', value: hello() });
    assert.deepEqual(await engine.receive('welcome'), { protocol: 1 });
    assert.deepEqual(await engine.receive('configure'), {
      headGroups: [],
      measureEvery: 1,
      probeTokens: 24,
      statistics: undefined,
      reportHeld: undefined,
    });
  });

  test('hears nothing without lockstep as long as there is nothing to do', async () => {
    engine = another();
    await engine.greet({ lockstep: false });
    engine.start(started(1));
    engine.tell(1, [row(1, 48)]);
    engine.tell(2, [row(1, 128)]);
    const plan = await engine.receive('plan');
    assert.equal(plan.basedOnStep, 2n);
    assert.deepEqual(plan.requests, [
      { handle: 1, epoch: 0, evict: [2], probe: false, releaseThinking: false, merges: [], shadow: undefined },
    ]);
  });

  test('gets no plan for a step before its last message has come', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1));
    engine.start(started(2));
    engine.tell(1, [row(1, 128)], {}, true);
    const plan = await engine.step(1, [row(2, 128)]);
    assert.deepEqual(
      plan.requests.map(({ handle }) => handle),
      [1, 2],
    );
  });

  test('gets no plan while it does not read those it has, unless it is in lockstep', async () => {
    for (const lockstep of [false, true]) {
      const sent: AttachResponse[] = [];
      const engines = createEngines({
        settings: { current: settingsOf(testConfig({}, profiles)) },
        logger: createLogger('test', 'silent'),
      });
      const { receive } = engines.open({
        send: (message) => sent.push(message),
        isBlocked: () => true,
        refuse: ({ details }) => assert.fail(details),
      });
      receive({ message: { $case: 'hello', value: hello({ lockstep }) } });
      receive({ message: { $case: 'started', value: started(1) } });
      receive({
        message: { $case: 'step', value: { step: 1n, pool: undefined, requests: [row(1, 128)], more: false } },
      });
      const plans = sent.filter(({ message }) => message?.$case === 'plan');
      assert.equal(plans.length, lockstep ? 1 : 0);
      const [missed] = (await engines.metrics.missedSteps.get()).values;
      assert.equal(missed?.value, lockstep ? 0 : 1);
    }
  });

  test('probes by the longest of its end-of-thinking sequences', () => {
    const endOfThinking = [[7], [1, 2, 3], [4, 5]].map((tokenIds) => ({ tokenIds }));
    const negotiated = negotiate(hello({ endOfThinking }));
    assert.ok('probeSuffixTokens' in negotiated);
    assert.equal(negotiated.probeSuffixTokens, 3);
  });

  test('evicts nothing without the capability', async () => {
    engine = another();
    await engine.greet({ capabilities: [] });
    engine.start(started(1));
    assert.deepEqual((await engine.step(1, [row(1, 320)])).requests, []);
  });

  test('may send nonsense: it is counted and dropped, and the stream goes on', async () => {
    engine = another();
    engine.send({ $case: 'step', value: { step: 1n, pool: undefined, requests: [], more: false } });
    await engine.greet();
    engine.start(started(1, options('crf')));
    engine.start(started(1));
    engine.start(started(3, { parentHandle: 77 }));
    // The engine has 100 blocks of 16 tokens.
    engine.start(started(4, { computedTokens: 1601 }));
    await engine.step(4, [row(1, 1601)]);
    await engine.step(5, [row(1, 100), row(99, 10)]);
    await engine.step(6, [row(1, 100, { masses: Buffer.alloc(3) })]);
    await engine.step(7, [row(1, 100, { masses: Buffer.alloc(14, 200) })]);
    await engine.step(8, [row(1, 20)]);
    await engine.step(9, [row(1, 4_000_000_000)]);
    engine.tell(9, []);
    engine.send({ $case: 'hello', value: hello() });
    engine.send({ $case: 'snapshot', value: { requests: [started(50)] } });
    engine.send({ $case: 'preempted', value: { handle: 98, epoch: 1 } });
    engine.send({ $case: 'finished', value: { handle: 97, reason: 1, generatedTokens: 0, probeTokens: 0 } });
    engine.send({ $case: 'ack', value: { planSequence: 999n, appliedAtStep: 1n, requests: [] } });
    assert.deepEqual((await engine.step(10, [row(1, 128)])).requests[0]?.evict, [2]);
    const reasons = {
      before_hello: 1,
      duplicate_handle: 1,
      unknown_parent: 1,
      unknown_handle: 3,
      mass_length: 1,
      mass_code: 1,
      tokens_went_back: 1,
      too_long: 1,
      beyond_pool: 2,
      step_out_of_order: 1,
      second_hello: 1,
      late_snapshot: 1,
      unknown_plan: 1,
    };
    for (const [reason, count] of Object.entries(reasons)) {
      assert.equal(await metric(server, 'crystalkv_bad_messages_total', { reason }), count, reason);
    }
    assert.equal(await metric(server, 'crystalkv_bad_messages_total', { reason: 'internal_error' }), 0);
  });

  test('that says its pool is larger than it said first, or freer than it is large, is not believed', async () => {
    engine = another();
    await engine.greet({ engineId: 'boasting' });
    engine.start(started(1));
    const before = Number(await metric(server, 'crystalkv_bad_messages_total', { reason: 'beyond_pool' }));
    for (const [step, pool] of [{ totalBlocks: 101 }, { freeBlocks: 101 }, { totalBlocks: 4_000_000_000 }].entries()) {
      const state = { freeBlocks: 50, totalBlocks: 100, waiting: 0, running: 1, preemptions: 0n, ...pool };
      engine.send({ $case: 'step', value: { step: BigInt(step + 1), pool: state, requests: [], more: false } });
    }
    await engine.step(10, [row(1, 20)]);
    assert.equal(await metric(server, 'crystalkv_bad_messages_total', { reason: 'beyond_pool' }), before + 3);
  });

  test('has parts of an older step than the one that it has begun dropped', async () => {
    engine = another();
    await engine.greet({ engineId: 'back' });
    engine.start(started(1));
    const before = await metric(server, 'crystalkv_bad_messages_total', { reason: 'step_out_of_order' });
    engine.tell(5, [row(1, 100)], {}, true);
    engine.tell(4, [row(1, 128)]);
    assert.deepEqual((await engine.step(5, [])).requests, []);
    assert.equal(await metric(server, 'crystalkv_bad_messages_total', { reason: 'step_out_of_order' }), before + 1);
  });

  test('is refused when it speaks no common protocol version', async () => {
    engine = another();
    engine.send({
      $case: 'hello',
      value: hello({ protocolMin: 2, protocolMax: 4 }),
    });
    const error = await engine.failure();
    assert.equal(error.code, status.FAILED_PRECONDITION);
    assert.match(error.details, /engine speaks 2 to 4, the policy service 1 to 1/);
  });

  test('is refused with the value and the bounds when its hello makes no sense', async () => {
    engine = another();
    engine.send({ $case: 'hello', value: hello({ blockSize: 0 }) });
    const error = await engine.failure();
    assert.equal(error.code, status.INVALID_ARGUMENT);
    assert.match(error.details, /block_size is 0; allowed: 1 to 4096/);
  });

  test('replaces the older stream of its name', async () => {
    const older = another();
    await older.greet();
    const newer = another();
    await newer.greet({ instanceId: 'instance-2' });
    const error = await older.failure();
    assert.equal(error.code, status.ABORTED);
    assert.match(error.details, /replaced by a newer stream of engine engine-a \(instance-2\)/);
    await newer.step(1, []);
    assert.equal(await metric(server, 'crystalkv_stream_up', { engine: 'engine-a' }), 1);
  });

  test('shares nothing with other engines', async () => {
    const [a, b] = [another(), another()];
    await a.greet({ engineId: 'a' });
    await b.greet({ engineId: 'b' });
    a.start(started(1));
    b.start(started(1));
    await a.step(1, [row(1, 64)]);
    assert.deepEqual((await b.step(1, [row(1, 128)])).requests[0]?.evict, [2]);
    assert.deepEqual((await a.step(2, [row(1, 65)])).requests, []);
  });
});
