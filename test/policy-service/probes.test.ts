import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { promisify } from 'node:util';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import { Capability, type GetRequestResponse, Phase, ProbeAnswer } from '../../proto/gen/crystalkv/v1/policy.ts';
import { masses, metric, row, type ScriptedEngine, scriptedEngines, started, startService } from './scripted-engine.ts';
import { options, profiles } from './session-profiles.ts';

suite('answer probes of an attached engine', () => {
  let server: PolicyServer;
  let engine: ScriptedEngine;
  const another = scriptedEngines(() => server);

  before(async () => {
    const settling = { ...profiles.crystal, probe: { ...profiles.crystal.probe, stop_after: 2 } };
    // ten blocks at first, then 85 % of what there was
    const keeping = { ...profiles.crystal, controller: { type: 'ratio', share: 0.85, floor_tokens: 160 } };
    const releasing = { ...keeping, answer_release: true };
    server = await startService({}, { ...profiles, settling, keeping, releasing });
  });
  after(() => server.close());

  test('is asked for a probe before the first eviction, and the answer decides what stays', async () => {
    engine = another();
    await engine.greet({ engineId: 'probed' });
    engine.start(started(1, options('crystal')));
    // The budget of ten output blocks is full at 192 tokens; a probe takes 4 + 1 tokens and gets a block of lead.
    assert.deepEqual((await engine.step(1, [row(1, 160)])).requests, []);
    const plan = await engine.step(2, [row(1, 176)]);
    assert.deepEqual(plan.requests, [
      { handle: 1, epoch: 0, evict: [], probe: true, releaseThinking: false, merges: [], shadow: undefined },
    ]);
    engine.ack(plan, [{ probe: ProbeAnswer.PROBE_ANSWER_STARTED }]);
    engine.start(started(9, { crystalkvId: '', parentHandle: 1, computedTokens: 176 }));
    // The answer reads blocks 2 and 3; everything else nothing.
    await engine.step(3, [row(1, 177), row(9, 177, { masses: masses(12, [2, 3]) })]);
    await engine.step(4, [row(1, 178), row(9, 178, { masses: masses(12, [2]) })]);
    engine.send({ $case: 'finished', value: { handle: 9, reason: 1, generatedTokens: 2, probeTokens: 5 } });
    assert.deepEqual((await engine.step(5, [row(1, 224)])).requests[0]?.evict, [4, 5, 6]);
    assert.equal(await metric(server, 'crystalkv_probes_total', { engine: 'probed', outcome: 'finished' }), 1);
    assert.equal(await metric(server, 'crystalkv_probe_tokens_total', { engine: 'probed' }), 5);
  });

  test('shows what the answer reads of each segment', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1, { ...options('crystal'), crystalkvId: 'segments' }));
    engine.obey(await engine.step(1, [row(1, 176, { segmentStarts: [32, 64] })]));
    engine.start(started(9, { crystalkvId: '', parentHandle: 1, computedTokens: 176 }));
    await engine.step(2, [row(9, 177, { masses: masses(12, [2, 3, 5]) })]);
    engine.send({ $case: 'finished', value: { handle: 9, reason: 1, generatedTokens: 1, probeTokens: 2 } });
    await engine.step(3, [row(1, 177)]);
    const get = promisify(engine.client.getRequest.bind(engine.client) as never) as (
      request: object,
    ) => Promise<GetRequestResponse>;
    const { request } = await get({ crystalkvId: 'segments', choiceIndex: 0 });
    const [first = 0, second = 0] = request?.segmentMasses ?? [];
    assert.ok(second > 0 && Math.abs(first - 2 * second) < 1e-6, `${first} ${second}`);
  });

  test('is asked to stop a probe that reads no further block', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1, options('settling')));
    engine.obey(await engine.step(1, [row(1, 176)]));
    engine.start(started(9, { crystalkvId: '', parentHandle: 1, computedTokens: 176 }));
    const probe = (read: number[]) => [row(9, 177, { masses: masses(12, read) })];
    assert.deepEqual((await engine.step(2, probe([]))).stopProbes, []);
    assert.deepEqual((await engine.step(3, probe([2]))).stopProbes, []);
    assert.deepEqual((await engine.step(4, probe([2]))).stopProbes, []);
    assert.deepEqual((await engine.step(5, probe([]))).stopProbes, [9]);
    assert.deepEqual((await engine.step(6, probe([]))).stopProbes, [], 'said once');
    engine.send({ $case: 'finished', value: { handle: 9, reason: 1, generatedTokens: 4, probeTokens: 5 } });
    // what it read until then counts
    assert.deepEqual((await engine.step(7, [row(1, 193)])).requests[0]?.evict, [3]);
  });

  const TOKENS = 480;
  test('is not asked to stop a probe that has ended', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1, options('settling')));
    engine.obey(await engine.step(1, [row(1, 176)]));
    engine.start(started(9, { crystalkvId: '', parentHandle: 1, computedTokens: 176 }));
    for (const step of [2, 3]) await engine.step(step, [row(9, 177, { masses: masses(12, [2]) })]);
    engine.tell(4, [row(9, 177, { masses: masses(12, [2]) })], {}, true);
    engine.send({ $case: 'finished', value: { handle: 9, reason: 1, generatedTokens: 4, probeTokens: 5 } });
    assert.deepEqual((await engine.step(4, [])).stopProbes, []);
  });

  /** Of the blocks that the probe saw, block 3 was read by it, block 4 long ago and block 5 lately by the reasoning. */
  const UNTOUCHED = [2, 4, 6, 7, 8, 9, 10];
  const answering = (epoch: number, tokens = TOKENS) => row(1, tokens, { epoch, phase: Phase.PHASE_ANSWER });

  /** Four steps of a request that thinks up to `TOKENS` and is probed once. Returns the four blocks that it lost. */
  async function think(profile: string): Promise<number[]> {
    await engine.greet({ engineId: profile });
    engine.start(started(1, options(profile)));
    engine.obey(await engine.step(1, [row(1, 176)]));
    engine.start(started(9, { crystalkvId: '', parentHandle: 1, computedTokens: 176 }));
    await engine.step(2, [row(9, 177, { masses: masses(12, [3]) })]);
    engine.send({ $case: 'finished', value: { handle: 9, reason: 1, generatedTokens: 1, probeTokens: 2 } });
    await engine.step(3, [row(1, 180, { masses: masses(12, [4]) })]);
    const plan = await engine.step(4, [row(1, TOKENS, { masses: masses(30, [5]) })]);
    engine.obey(plan);
    const gone = plan.requests[0]?.evict ?? [];
    assert.equal(gone.length, 4);
    return gone;
  }

  test('releases what neither a probe nor the newest reasoning read when the thinking ends, once', async () => {
    engine = another();
    const gone = await think('releasing');
    const plan = await engine.step(5, [answering(0)]);
    const untouched = UNTOUCHED.filter((block) => !gone.includes(block));
    assert.ok(untouched.length > 0);
    assert.deepEqual(plan.requests[0]?.evict, untouched);
    engine.obey(plan);
    assert.deepEqual((await engine.step(6, [answering(0, TOKENS + 1)])).requests, []);
  });

  test('releases nothing when the thinking ends where the profile does not say so', async () => {
    engine = another();
    await think('keeping');
    assert.deepEqual((await engine.step(5, [answering(0)])).requests, []);
  });

  test('releases again what a preempted answer computed again', async () => {
    engine = another();
    await think('releasing');
    engine.obey(await engine.step(5, [answering(0)]));
    engine.send({ $case: 'preempted', value: { handle: 1, epoch: 1 } });
    assert.deepEqual((await engine.step(6, [answering(1)])).requests[0]?.evict, UNTOUCHED);
  });

  test('warms a cold request up with one probe', async () => {
    engine = another();
    await engine.greet({}, [started(1, { ...options('crystal'), computedTokens: 192 })]);
    const plan = await engine.step(1, [row(1, 192)]);
    assert.deepEqual(plan.requests, [
      { handle: 1, epoch: 0, evict: [], probe: true, releaseThinking: false, merges: [], shadow: undefined },
    ]);
    engine.obey(plan);
    engine.start(started(9, { crystalkvId: '', parentHandle: 1, computedTokens: 192 }));
    assert.deepEqual((await engine.step(2, [row(9, 193, { masses: masses(13, [2]) })])).requests, []);
    engine.send({ $case: 'finished', value: { handle: 9, reason: 2, generatedTokens: 1, probeTokens: 2 } });
    assert.deepEqual((await engine.step(3, [row(1, 193)])).requests[0]?.evict, [3]);
  });

  test('is asked again a block later when it had no room for a probe', async () => {
    engine = another();
    await engine.greet({ engineId: 'crowded' });
    engine.start(started(1, options('crystal')));
    engine.ack(await engine.step(1, [row(1, 176)]), [{ probe: ProbeAnswer.PROBE_ANSWER_NO_ROOM }]);
    assert.deepEqual((await engine.step(2, [row(1, 177)])).requests, []);
    assert.equal((await engine.step(3, [row(1, 192)])).requests[0]?.probe, true);
    assert.equal(await metric(server, 'crystalkv_probes_total', { engine: 'crowded', outcome: 'no_room' }), 1);
  });

  test('has a probe that was given up counted from half of its tokens on', async () => {
    for (const [steps, outcome] of [
      [11, 'dropped'],
      [12, 'partial'],
    ] as const) {
      engine = another();
      await engine.greet({ engineId: `gives-up-after-${steps}` });
      engine.start(started(1, options('crystal')));
      engine.obey(await engine.step(1, [row(1, 176)]));
      engine.start(started(9, { crystalkvId: '', parentHandle: 1, computedTokens: 176 }));
      for (let step = 2; step < 2 + steps; step += 1)
        await engine.step(step, [row(9, 177, { masses: masses(12, [2]) })]);
      engine.send({ $case: 'finished', value: { handle: 9, reason: 4, generatedTokens: steps, probeTokens: steps } });
      // Read by the probe, block 2 stays; without it, the oldest of equal blocks leaves.
      const expected = outcome === 'partial' ? [3] : [2];
      assert.deepEqual((await engine.step(20, [row(1, 192)])).requests[0]?.evict, expected);
      assert.equal(await metric(server, 'crystalkv_probes_total', { engine: `gives-up-after-${steps}`, outcome }), 1);
    }
  });

  test('is not asked again for a probe of a request that it will not probe, only for those of others', async () => {
    engine = another();
    await engine.greet();
    engine.start(started(1, options('crystal')));
    engine.start(started(2, options('crystal')));
    const plan = await engine.step(1, [row(1, 176), row(2, 100)]);
    engine.ack(plan, [{ probe: ProbeAnswer.PROBE_ANSWER_UNSUPPORTED }]);
    assert.deepEqual((await engine.step(2, [row(1, 192)])).requests[0]?.probe, false);
    // The next probe of another request would be due.
    assert.deepEqual((await engine.step(3, [row(1, 256)])).requests[0]?.probe, false);
    const next = await engine.step(4, [row(2, 176)]);
    assert.deepEqual(
      next.requests.map(({ handle, probe }) => [handle, probe]),
      [[2, true]],
    );
  });

  test('is not asked for probes that it cannot make', async () => {
    for (const changes of [{ capabilities: [Capability.CAPABILITY_EVICT] }, { endOfThinking: [] }]) {
      engine = another();
      await engine.greet(changes);
      engine.start(started(1, options('crystal')));
      assert.deepEqual((await engine.step(1, [row(1, 176)])).requests, []);
    }
  });
});
