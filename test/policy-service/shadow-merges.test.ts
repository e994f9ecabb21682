import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { pino } from 'pino';
import { STATISTICS } from '../../common/protocol.ts';
import { createServer, type PolicyServer } from '../../policy-service/rpc/server.ts';
import {
  Capability,
  Mode,
  Phase,
  type Plan,
  Reject,
  type RequestState,
  type ShadowPlan,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import {
  GROUPS,
  masses,
  metric,
  row,
  ScriptedEngine,
  scriptedEngines,
  started,
  startService,
  testConfig,
} from './scripted-engine.ts';

const CAPABILITIES = [
  Capability.CAPABILITY_EVICT,
  Capability.CAPABILITY_PROBE,
  Capability.CAPABILITY_MERGE,
  Capability.CAPABILITY_SHADOW_MERGE,
];
const merging = { policy: 'window', merge: true, controller: { type: 'fixed', budget_tokens: 96 } };
const profiles = {
  merging: { ...merging, mode: 'shadow' },
  canaries: { ...merging, canary_share: 1, hits: { rule: 'mass', share: 0.25 } },
  nucleus: { ...merging, mode: 'shadow', hits: { rule: 'nucleus', share: 0.9 } },
  evicting: { ...merging, merge: false, mode: 'shadow' },
};
const asked = (profile: string, mode: Mode = Mode.MODE_UNSPECIFIED) => ({ options: { profile, mode } });
const merges = (plan: Plan) => plan.requests[0]?.shadow?.merges.map(({ into, from }) => ({ into, from }));

// A prompt of 32 tokens in blocks of 16, the newest 32 tokens protected: at 128 tokens blocks 2 to 5 may be merged.
suite('merges of requests in shadow mode', () => {
  let server: PolicyServer;
  let engine: ScriptedEngine;
  const another = scriptedEngines(() => server);

  before(async () => {
    server = await startService({ default_profile: 'merging' }, profiles);
  });
  after(() => server.close());

  const greet = (engineId: string, capabilities = CAPABILITIES) => {
    engine = another();
    return engine.greet({ engineId, capabilities, statistics: Object.values(STATISTICS.values) });
  };
  const shadowOf = ({ requests }: Plan): ShadowPlan => {
    assert.equal(requests.length, 1);
    assert.deepEqual([requests[0]!.evict, requests[0]!.merges], [[], []], 'nothing is really asked for');
    return requests[0]!.shadow!;
  };

  test('are marked by the engine, in virtual blocks', async () => {
    await greet('marking');
    engine.start(started(1));
    const first = await engine.step(1, [row(1, 128)]);
    const { begin, evict, readShare } = shadowOf(first);
    assert.deepEqual([begin, evict, Math.round(readShare * 100)], [true, [], 10]);
    assert.deepEqual(merges(first), [{ into: [3, 4, 5], from: [2] }]);
    assert.ok(shadowOf(first).merges[0]?.rule);
    engine.obey(first);
    assert.deepEqual((await engine.step(2, [row(1, 129)])).requests, []);
    const second = await engine.step(3, [row(1, 144)]);
    assert.equal(shadowOf(second).begin, false);
    assert.deepEqual(merges(second), [{ into: [4, 5, 6], from: [3] }]);
    engine.obey(second);
    await engine.step(4, [row(1, 145)]);
    assert.equal(await metric(server, 'crystalkv_shadow_evicted_blocks_total', { engine: 'marking' }), 2);
    assert.equal(await metric(server, 'crystalkv_blocks_evicted_total', { engine: 'marking' }), 0);
    assert.equal(await metric(server, 'crystalkv_plans_total', { engine: 'marking', outcome: 'applied' }), 2);
  });

  test('cost what the engine says, by mode and phase; GetRequest says so too', async () => {
    await greet('telling');
    engine.start(started(1, asked('canaries')));
    const plan = await engine.step(1, [row(1, 144)]);
    assert.equal(shadowOf(plan).readShare, 0.25);
    engine.obey(plan);
    const tell = (step: number, phase: Phase, missedMass: number, regrettedTokens: number) =>
      engine.step(step, [row(1, 144, { phase, masses: masses(9, [5]), shadow: { missedMass, regrettedTokens } })]);
    await tell(2, Phase.PHASE_THINKING, 0.5, 8);
    await tell(3, Phase.PHASE_THINKING, 0.25, 0);
    await tell(4, Phase.PHASE_ANSWER, 0.125, 16);
    const labels = { engine: 'telling', profile: 'canaries', mode: 'canary' };
    const of = (name: string, phase: string) => metric(server, `crystalkv_${name}`, { ...labels, phase });
    assert.equal(await of('shadow_steps_total', 'thinking'), 2);
    assert.equal(await of('shadow_missed_mass_total', 'thinking'), 0.75);
    assert.equal(await of('missed_mass_ratio', 'answer'), 0.125);
    // two blocks would have gone; a block is 16 tokens in each of the head groups
    assert.equal(await of('shadow_evicted_blocks_total', 'thinking'), 2);
    assert.equal(await of('shadow_regretted_blocks_total', 'thinking'), 8 / (16 * GROUPS));
    assert.equal(await of('shadow_regretted_blocks_total', 'answer'), 0.5);
    const { shadow, canary, residentBlocks } = await stateOf('request-1');
    assert.deepEqual([canary, residentBlocks], [true, 9]);
    assert.deepEqual(shadow, {
      blocks: 2,
      byToken: true,
      phases: [
        { phase: Phase.PHASE_THINKING, steps: 2, missedMass: 0.375, regrettedBlocks: 0.25 },
        { phase: Phase.PHASE_ANSWER, steps: 1, missedMass: 0.125, regrettedBlocks: 0.5 },
      ],
    });
  });

  test('have figures that make sense, or none', async () => {
    await greet('confused');
    engine.start(started(1));
    const bad = { missedMass: Number.NaN, regrettedTokens: 1 };
    const early = { missedMass: 0.5, regrettedTokens: 1 };
    // nothing is marked yet
    const plan = await engine.step(1, [row(1, 128, { masses: masses(8, [5]), shadow: early })]);
    engine.obey(plan);
    const before = await metric(server, 'crystalkv_bad_messages_total', { reason: 'shadow_reads' });
    await engine.step(2, [row(1, 128, { masses: masses(8, [5]), shadow: bad })]);
    await engine.step(3, [row(1, 128, { masses: masses(8, [5]) })]);
    assert.equal(await metric(server, 'crystalkv_bad_messages_total', { reason: 'shadow_reads' }), before + 1);
    assert.equal(await metric(server, 'crystalkv_shadow_steps_total', { engine: 'confused' }), 0);
  });

  test('that were refused, or whose plan was lost, are asked for again', async () => {
    await greet('refusing');
    engine.start(started(1));
    const plan = await engine.step(1, [row(1, 128)]);
    engine.ack(plan, [{ rejected: [{ reason: Reject.REJECT_SHARED, blocks: [3] }] }]);
    const next = await engine.step(2, [row(1, 129)]);
    assert.deepEqual(merges(next), [{ into: [4, 5], from: [2] }]);
    assert.equal(shadowOf(next).begin, false, 'the engine began with the plan that it refused in part');
    const later = await engine.step(3, [row(1, 144)]);
    engine.obey(later);
    const again = await engine.step(4, [row(1, 145)]);
    assert.deepEqual(merges(again)?.[0]?.from, [2], 'the plan before the last was skipped');
    assert.equal(await metric(server, 'crystalkv_shadow_evicted_blocks_total', { engine: 'refusing' }), 1);
  });

  test('begin anew where the engine did not begin, and after a preemption', async () => {
    await greet('beginning');
    engine.start(started(1));
    const plan = await engine.step(1, [row(1, 128)]);
    engine.ack(plan, [{ rejected: [{ reason: Reject.REJECT_FUTURE_STEP, blocks: [] }] }]);
    assert.deepEqual((await engine.step(2, [row(1, 130)])).requests, []);
    const again = await engine.step(3, [row(1, 144)]);
    assert.deepEqual([shadowOf(again).begin, merges(again)?.[0]?.from], [true, [2, 3]]);
    engine.obey(again);
    engine.send({ $case: 'preempted', value: { handle: 1, epoch: 1 } });
    const fresh = await engine.step(4, [row(1, 144, { epoch: 1 })]);
    assert.deepEqual([shadowOf(fresh).begin, merges(fresh)?.[0]?.from], [true, [2, 3]]);
  });

  test('of the last block are evictions, which the engine marks as well', async () => {
    await greet('single');
    engine.start(started(1, { promptTokens: 80, options: { profile: '', mode: 0, budgetTokens: 32 } }));
    const { evict, merges: none } = shadowOf(await engine.step(1, [row(1, 128)]));
    assert.deepEqual([evict, none], [[5], []]);
  });

  test('take a token as read by a tenth of the attention where hits have no such share', async () => {
    await greet('nuclear');
    engine.start(started(1, asked('nucleus')));
    const { readShare } = shadowOf(await engine.step(1, [row(1, 128)]));
    assert.equal(Math.fround(0.1), readShare);
  });

  test('are judged by whole blocks where the engine cannot mark, or the profile does not merge', async () => {
    for (const [engineId, capabilities, profile] of [
      ['older', CAPABILITIES.slice(0, 3), 'merging'],
      ['able', CAPABILITIES, 'evicting'],
    ] as const) {
      await greet(engineId, [...capabilities]);
      engine.start(started(1, asked(profile)));
      assert.deepEqual((await engine.step(1, [row(1, 144, { masses: masses(9, [5]) })])).requests, []);
      const said = { missedMass: 0.9, regrettedTokens: 99 };
      await engine.step(2, [row(1, 144, { masses: masses(9, [2, 5]), shadow: said })]);
      assert.equal(await metric(server, 'crystalkv_missed_mass_ratio', { engine: engineId }), 0.5);
      assert.equal(await metric(server, 'crystalkv_shadow_regretted_blocks_total', { engine: engineId }), 1);
      assert.equal((await stateOf('request-1')).shadow?.byToken, false);
      engine.close();
    }
  });

  test('that an engine cannot mark are said once in the log', async () => {
    const lines: { msg: string; engine: string; profile: string }[] = [];
    const logger = pino({ level: 'warn' }, { write: (line: string) => lines.push(JSON.parse(line)) });
    const said = await createServer({ config: testConfig({ default_profile: 'merging' }, profiles), logger });
    const older = new ScriptedEngine(said.address);
    try {
      await older.greet({ engineId: 'older', capabilities: CAPABILITIES.slice(0, 3) });
      for (const handle of [1, 2]) older.start(started(handle, asked('merging')));
      older.start(started(3, asked('evicting')));
      await older.step(1, [row(1, 128)]);
      assert.deepEqual(
        lines.map(({ engine: name, profile }) => [name, profile]),
        [['older', 'merging']],
      );
      assert.match(lines[0]!.msg, /cannot mark what merges would let go/);
    } finally {
      older.close();
      await said.close();
    }
  });

  function stateOf(crystalkvId: string) {
    return new Promise<RequestState>((resolve, reject) => {
      engine.client.getRequest({ crystalkvId, choiceIndex: 0 }, (error, response) => {
        if (error !== null || response.request === undefined) reject(error);
        else resolve(response.request);
      });
    });
  }
});
