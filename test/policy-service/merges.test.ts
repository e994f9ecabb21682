import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { STATISTICS } from '../../common/protocol.ts';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import { Capability, Mode, type Plan, Reject, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';
import { masses, metric, row, type ScriptedEngine, scriptedEngines, started, startService } from './scripted-engine.ts';

const CAPABILITIES = [Capability.CAPABILITY_EVICT, Capability.CAPABILITY_PROBE, Capability.CAPABILITY_MERGE];
const ALL = Object.values(STATISTICS.values);
const merging = { policy: 'window', merge: true, controller: { type: 'fixed', budget_tokens: 96 } };
const profiles = {
  merging,
  probing: { ...merging, policy: 'crystal', probe: { credit_tokens: 1000 } },
  random: { ...merging, policy: 'random' },
  pressure: {
    policy: 'window',
    merge: true,
    controller: { type: 'pressure', merge_floor_tokens: 16, merge_floor_share: 0 },
  },
};
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

  const greet = (change = {}) => engine.greet({ capabilities: CAPABILITIES, statistics: ALL, ...change });

  test('are asked for in place of evictions, over all blocks that may leave, and not twice', async () => {
    engine = another();
    await greet();
    engine.start(started(1));
    assert.deepEqual((await engine.step(1, [row(1, 127)])).requests, []);
    const plan = await engine.step(2, [row(1, 128)]);
    assert.deepEqual(blocksOf(plan), [{ into: [3, 4, 5], from: [2] }]);
    assert.deepEqual(plan.requests[0]?.evict, []);
    assert.deepEqual((await engine.step(3, [row(1, 129)])).requests, []);
    engine.obey(plan);
    const next = await engine.step(4, [row(1, 144)]);
    assert.deepEqual(blocksOf(next), [{ into: [4, 5, 6], from: [3] }]);
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
    assert.deepEqual(blocksOf(next), [{ into: [4, 5], from: [2] }]);
  });

  test('that name a hole learn of it', async () => {
    engine = another();
    await greet();
    engine.start(started(1));
    const plan = await engine.step(1, [row(1, 144)]);
    assert.deepEqual(blocksOf(plan), [{ into: [4, 5, 6], from: [2, 3] }]);
    engine.ack(plan, [{ rejected: [{ reason: Reject.REJECT_NOT_RESIDENT, blocks: [4] }] }]);
    const next = await engine.step(2, [row(1, 145)]);
    assert.deepEqual(blocksOf(next), [{ into: [3, 5, 6], from: [2] }]);
  });

  test('begin anew after a preemption', async () => {
    engine = another();
    await greet();
    engine.start(started(1));
    engine.obey(await engine.step(1, [row(1, 144)]));
    engine.send({ $case: 'preempted', value: { handle: 1, epoch: 1 } });
    const plan = await engine.step(2, [row(1, 144, { epoch: 1 })]);
    assert.deepEqual(
      plan.requests.map(({ epoch }) => epoch),
      [1],
    );
    assert.deepEqual(blocksOf(plan), [{ into: [4, 5, 6], from: [2, 3] }]);
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

  test('tell the engine which tokens stay, with another seed each time', async () => {
    engine = another();
    await greet();
    engine.start(started(1, asked('random')));
    const first = await engine.step(1, [row(1, 128)]);
    engine.obey(first);
    const second = await engine.step(2, [row(1, 144)]);
    const [one, other] = [first, second].map((plan) => plan.requests[0]?.merges[0]?.rule);
    const term = { statistic: Statistic.STATISTIC_RANDOM, weight: 1, scale: 0, pool: 0 };
    assert.deepEqual(one?.stages, [{ share: 1, terms: [term], sampled: false }]);
    assert.deepEqual(other?.stages, one.stages);
    assert.notEqual(other?.seed, one.seed);
  });

  test('wait while a probe reads the blocks, and then go by what it read', async () => {
    engine = another();
    await greet();
    engine.start(started(1, asked('probing')));
    await engine.receive('configure');
    const quiet: number[] = [];
    let probedAt = 0;
    for (let tokens = 33; probedAt === 0; tokens++) {
      assert.ok(tokens < 128, 'a probe is asked for before the first block has to go');
      const plan = await engine.step(tokens, [row(1, tokens)]);
      quiet.push(plan.requests.flatMap(({ merges }) => merges).length);
      if (plan.requests[0]?.probe) probedAt = tokens;
    }
    assert.ok(quiet.every((merges) => merges === 0));
    engine.ack(await engine.step(127, [row(1, 127)]), []);
    engine.start(started(2, { parentHandle: 1, computedTokens: 112 }));
    const waiting = await engine.step(128, [row(1, 128), row(2, 130, { masses: masses(9, []) })]);
    assert.deepEqual(waiting.requests, []);
    engine.send({ $case: 'finished', value: { handle: 2, reason: 1, generatedTokens: 4, probeTokens: 6 } });
    const plan = await engine.step(129, [row(1, 129)]);
    const rule = plan.requests[0]?.merges[0]?.rule;
    assert.deepEqual(
      rule?.stages.map(({ terms }) => terms.map(({ statistic }) => STATISTICS.word(statistic))),
      [['answer'], ['attention'], ['peak', 'distinct_keys']],
    );
  });

  test('of a request that was never probed leave the share of the answer to attention', async () => {
    engine = another();
    await greet({ endOfThinking: [] });
    engine.start(started(1, asked('probing')));
    await engine.receive('configure');
    const rule = (await engine.step(1, [row(1, 128)])).requests[0]?.merges[0]?.rule;
    assert.deepEqual(
      rule?.stages.map(({ share, terms }) => [share.toFixed(2), terms.map(({ weight }) => weight)]),
      [
        ['0.70', [1]],
        ['1.00', [0.5, 0.5]],
      ],
    );
  });

  test('go by the keys alone where the engine does not keep what the rule needs', async () => {
    engine = another();
    await greet({ statistics: ALL.filter((one) => one >= Statistic.STATISTIC_DISTINCT_KEYS), endOfThinking: [] });
    engine.start(started(1, asked('probing')));
    const [request] = (await engine.step(1, [row(1, 128)])).requests;
    const term = { statistic: Statistic.STATISTIC_KEY_DIFFERENCE, weight: 1, scale: 0, pool: 0 };
    assert.deepEqual(request?.merges[0]?.rule?.stages, [{ share: 1, terms: [term], sampled: false }]);
  });

  test('are evictions of whole blocks where the engine can follow no rule of the policy', async () => {
    engine = another();
    await greet({ statistics: [Statistic.STATISTIC_POSITION], endOfThinking: [] });
    engine.start(started(1, asked('probing')));
    const [request] = (await engine.step(1, [row(1, 128)])).requests;
    assert.deepEqual([request?.evict.length, request?.merges], [1, []]);
  });

  test('make the engine keep the statistics of the profiles that requests came with', async () => {
    engine = another();
    const configure = await greet();
    assert.equal(configure.statistics, undefined);
    engine.start(started(1, asked('probing')));
    const { statistics } = await engine.receive('configure');
    assert.deepEqual(
      statistics?.statistics.map((one) => STATISTICS.word(one)),
      ['attention', 'peak', 'answer'],
    );
    assert.deepEqual([statistics.attentionHalfLifeTokens, statistics.peakHalfLifeTokens], [400, 865]);
  });

  test('free what the pool needs under pressure, and keep a block', async () => {
    engine = another();
    await greet();
    engine.start(started(1, asked('pressure')));
    const plan = await engine.step(1, [row(1, 128)], { freeBlocks: 0 });
    assert.deepEqual(blocksOf(plan), [{ into: [5], from: [2, 3, 4] }]);
  });

  test('look at 64 blocks at most, the newest that stay', async () => {
    engine = another();
    await greet({ poolBlocks: 200 });
    engine.start(started(1, { options: { profile: '', mode: 0, budgetTokens: 100 * 16 } }));
    const [merge] = (await engine.step(1, [row(1, 102 * 16)])).requests[0]!.merges;
    assert.deepEqual(merge?.from, [2]);
    assert.deepEqual(
      merge?.into,
      Array.from({ length: 63 }, (_, i) => 37 + i),
    );
  });

  const blocksOf = (plan: Plan) => plan.requests[0]?.merges.map(({ into, from }) => ({ into, from }));

  function stateOf(crystalkvId: string) {
    return new Promise<{ keep: Uint8Array; residentBlocks: number }>((resolve, reject) => {
      engine.client.getRequest({ crystalkvId, choiceIndex: 0 }, (error, response) => {
        if (error !== null || response.request === undefined) reject(error);
        else resolve(response.request);
      });
    });
  }
});
