import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EngineCore } from '../../engine/core/engine-core.ts';
import { evict, evictableRange } from '../../engine/core/evict.ts';
import { ProbeAnswer, Reject } from '../../proto/gen/crystalkv/v1/policy.ts';
import { attached } from './attached.ts';
import { coreOptions, EOS, request, ScriptedModel } from './scripted-model.ts';

test('a plan turns blocks into holes, frees them, and is acknowledged', () => {
  const { core, run, plan } = attached();
  core.submit(request('a', 10));
  run(50);
  const free = core.pool.free;
  const ack = plan({ evict: [3, 2] });
  assert.deepEqual(ack.requests[0]?.evicted, [2, 3]);
  assert.deepEqual(ack.requests[0]?.rejected, []);
  assert.deepEqual(core.sequences[0]?.holes, [2, 3]);
  assert.equal(core.pool.free, free + 2);
});

test('a block that may not go is refused with its reason, the others go', () => {
  const { core, run, plan } = attached();
  core.submit(request('a', 10));
  run(50);
  plan({ evict: [3] });
  const ack = plan({ evict: [0, 1, 2, 3, 6, 7, 99] });
  assert.deepEqual(ack.requests[0]?.evicted, [2]);
  assert.deepEqual(ack.requests[0]?.rejected, [
    { reason: Reject.REJECT_PROTECTED, blocks: [0, 1, 6, 7] },
    { reason: Reject.REJECT_NOT_RESIDENT, blocks: [3] },
    { reason: Reject.REJECT_OUT_OF_RANGE, blocks: [99] },
  ]);
  assert.equal(core.stats().policy.rejected.protected, 4);
});

for (const [name, entry, future, reason] of [
  ['an unknown request', { handle: 77 }, 0, Reject.REJECT_UNKNOWN_REQUEST],
  ['a stale epoch', { epoch: 3 }, 0, Reject.REJECT_STALE_EPOCH],
  ['a step that the engine has not computed', {}, 1, Reject.REJECT_FUTURE_STEP],
] as const) {
  test(`a plan for ${name} is refused as a whole and counted`, () => {
    const { core, run, plan } = attached();
    core.submit(request('a', 10));
    run(50);
    const ack = plan({ evict: [2, 3], ...entry }, core.lastStep + future);
    assert.deepEqual(ack.requests[0]?.rejected, [{ reason, blocks: [] }]);
    assert.deepEqual(core.sequences[0]?.holes, []);
    assert.equal(
      Object.values(core.stats().policy.rejected).reduce((sum, n) => sum + n),
      2,
    );
  });
}

test('nothing is evicted while the switch is off, nor from a request that says off', () => {
  for (const [change, mode] of [
    [{ enabled: false }, undefined],
    [{}, 'off'],
  ] as const) {
    const { core, run, plan } = attached(change);
    core.submit(request('a', 10, {}, mode));
    run(50);
    assert.deepEqual(plan({ evict: [2] }).requests[0]?.rejected, [{ reason: Reject.REJECT_DISABLED, blocks: [] }]);
    assert.deepEqual(core.sequences[0]?.holes, []);
  }
});

test('a block that another sequence uses stays, unless the other one is its own probe', () => {
  const { core, run, plan } = attached();
  core.submit(request('a', 10));
  run(50);
  const { pool } = core;
  const [parent] = core.sequences;
  const other = parent!.blocks[3]!;
  pool.share(other);
  const { evicted, rejected } = evict(parent!, [2, 3], pool, { sinkTokens: 4, recentTokens: 8 });
  assert.deepEqual(evicted, [2]);
  assert.deepEqual([...rejected], [['shared', [3]]]);
  assert.equal(parent!.blocks[3], other);
  assert.equal(pool.references(other), 2);
  pool.release([other]);
  assert.equal(plan({ probe: true }).requests[0]?.probe, ProbeAnswer.PROBE_ANSWER_STARTED);
  assert.equal(pool.references(other), 2);
  assert.deepEqual(plan({ evict: [3] }).requests[0]?.evicted, [3]);
});

test('a merge keeps the tokens of two blocks in one, frees the other, and is acknowledged', () => {
  const { core, model, run, plan } = attached();
  core.submit(request('a', 10));
  run(50);
  const free = core.pool.free;
  const [, , second, third] = core.sequences[0]!.blocks;
  const merge = { into: [2], from: [3] };
  const ack = plan({ merges: [merge] }).requests[0]!;
  assert.deepEqual(ack, {
    handle: 1,
    epoch: 0,
    evicted: [3],
    rejected: [],
    probe: ProbeAnswer.PROBE_ANSWER_UNSPECIFIED,
    merged: [{ ...merge, rule: undefined }],
    shadowEvicted: [],
  });
  assert.deepEqual(core.sequences[0]?.holes, [3]);
  assert.equal(core.sequences[0]?.blocks[2], second);
  assert.equal(core.pool.references(third!), 0);
  assert.equal(core.pool.free, free + 1);
  assert.deepEqual(model.held(second!), [31, 30, 29, 28, 27, 26, 25, 24]);
  assert.equal(core.stats().merges, 1);
  assert.equal(core.stats().evictedBlocks, 1);
});

test('what is in memory of each token is told while somebody watches, and only then', () => {
  const { core, run, plan } = attached();
  core.submit(request('a', 10));
  run(50);
  assert.equal(plan({ evict: [3] }).requests[0]?.held, undefined);
  core.configure({ headGroups: [], measureEvery: 1, probeTokens: 4, statistics: undefined, reportHeld: true });
  const { held } = plan({ merges: [{ into: [4], from: [2] }] }).requests[0]!;
  // The output's full blocks are 2 to 6: 2 was merged into 4, whose tokens are newer and stay; 3 is gone.
  const [none, all] = [new Array(8).fill(0), new Array(8).fill(255)];
  assert.equal(held?.from, 16);
  assert.deepEqual([...(held?.shares ?? [])], [...none, ...none, ...all, ...all, ...all]);
  // two layers with one head each
  assert.deepEqual([...(held?.groups ?? [])], [0, 0, 255, 255, 255, 0, 0, 255, 255, 255]);
  assert.equal(plan({ evict: [2] }).requests[0]?.held, undefined, 'nothing became a hole');
});

test('a merge compares with the other full blocks of the output: none of the prompt, no hole, not the tail', () => {
  const { core, model, run, plan } = attached();
  core.submit(request('a', 12));
  run(50);
  const [sequence] = core.sequences;
  const at = (...indices: number[]) => indices.map((index) => sequence!.blocks[index]!);
  const [into, from, beside] = [at(2), at(4), at(5, 6)];
  const merged = model.merged.length;
  plan({ evict: [3], merges: [{ into: [2], from: [4] }] });
  assert.deepEqual(model.merged.slice(merged), [{ into, from, beside }]);
});

test('what evictions and merges of one plan made holes is acknowledged in ascending order', () => {
  const { core, run, plan } = attached();
  core.submit(request('a', 10));
  run(50);
  assert.deepEqual(plan({ evict: [5], merges: [{ into: [2], from: [3] }] }).requests[0]?.evicted, [3, 5]);
});

test('evictions come before merges, and a merged block may be merged again or leave', () => {
  const { core, run, plan } = attached();
  core.submit(request('a', 10, { maxTokens: 80 }));
  run(70);
  const first = plan({
    evict: [2],
    merges: [
      { into: [4, 5], from: [3] },
      { into: [5], from: [4] },
    ],
  }).requests[0]!;
  assert.deepEqual(first.evicted, [2, 3, 4]);
  assert.equal(first.merged.length, 2);
  const second = plan({ evict: [5], merges: [{ into: [6], from: [5] }] }).requests[0]!;
  assert.deepEqual(second.evicted, [5]);
  assert.deepEqual(second.rejected, [{ reason: Reject.REJECT_NOT_RESIDENT, blocks: [5] }]);
});

for (const [name, merge, reason, blocks] of [
  ['prompt and sinks', { into: [0, 1], from: [2] }, Reject.REJECT_PROTECTED, [0, 1]],
  ['newest tokens and the tail', { into: [3], from: [6, 7] }, Reject.REJECT_PROTECTED, [6, 7]],
  ['blocks that do not exist', { into: [3], from: [99] }, Reject.REJECT_OUT_OF_RANGE, [99]],
  ['holes', { into: [3], from: [5] }, Reject.REJECT_NOT_RESIDENT, [5]],
  ['no block to keep', { into: [], from: [3] }, Reject.REJECT_INVALID_MERGE, [3]],
  ['no block to free', { into: [3], from: [] }, Reject.REJECT_INVALID_MERGE, [3]],
  ['a block named twice', { into: [3, 2], from: [2] }, Reject.REJECT_INVALID_MERGE, [3, 2, 2]],
] as const) {
  test(`a merge of ${name} is refused as a whole, with the reason`, () => {
    const { core, run, plan } = attached();
    core.submit(request('a', 10));
    run(50);
    plan({ evict: [5] });
    const before = [...core.sequences[0]!.blocks];
    const ack = plan({ merges: [{ into: [...merge.into], from: [...merge.from] }] }).requests[0]!;
    assert.deepEqual(ack.rejected, [{ reason, blocks }]);
    assert.deepEqual([ack.merged, ack.evicted], [[], []]);
    assert.deepEqual(core.sequences[0]!.blocks, before);
    assert.equal(core.stats().merges, 0);
  });
}

test('a merge for a stale epoch is refused and counted by the blocks it wanted to free', () => {
  const { core, run, plan } = attached();
  core.submit(request('a', 10));
  run(50);
  const ack = plan({ epoch: 3, merges: [{ into: [2], from: [3, 4] }] });
  assert.deepEqual(ack.requests[0]?.rejected, [{ reason: Reject.REJECT_STALE_EPOCH, blocks: [] }]);
  assert.equal(core.stats().policy.rejected.stale_epoch, 2);
});

test('blocks that a probe reads are not merged; the next probe takes the merged row over', () => {
  const { core, messages, run, plan } = attached();
  core.submit(request('a', 10, { maxTokens: 100 }));
  run(50);
  plan({ probe: true });
  const refused = plan({ merges: [{ into: [2], from: [3] }] }).requests[0]!;
  assert.deepEqual(refused.rejected, [{ reason: Reject.REJECT_SHARED, blocks: [2, 3] }]);
  run(8);
  assert.equal(core.sequences.length, 1);
  assert.deepEqual(plan({ merges: [{ into: [2], from: [3] }] }).requests[0]?.evicted, [3]);
  plan({ probe: true });
  const started = messages.findLast((message) => message.$case === 'started');
  assert.ok(started?.$case === 'started');
  assert.deepEqual(started.value.evicted, [3]);
  const [parent, probe] = core.sequences;
  assert.equal(probe?.blocks[2], parent?.blocks[2]);
  run(10);
  assert.equal(core.sequences.length, 1);
});

test('masses after a merge have one column for each block that is left', () => {
  const { core, messages, run, plan } = attached();
  core.submit(request('a', 10, { maxTokens: 80 }));
  run(50);
  plan({ merges: [{ into: [3, 4], from: [2] }] });
  const step = messages.findLast((message) => message.$case === 'step');
  assert.ok(step?.$case === 'step');
  const [row] = step.value.requests;
  assert.equal(row?.masses.length, 2 * (Math.ceil(row!.computedTokens / 8) - 1));
});

test('a preemption undoes merges: everything is computed again', () => {
  const { core, messages, run, plan } = attached({ poolBlocks: 16, maxModelLength: 120 });
  core.submit(request('old', 10, { maxTokens: 100 }));
  core.submit(request('new', 10, { maxTokens: 100 }));
  run(45);
  assert.deepEqual(plan({ handle: 2, merges: [{ into: [2], from: [3] }] }).requests[0]?.evicted, [3]);
  for (let i = 0; i < 40 && core.sequences.every(({ epoch }) => epoch === 0); i++) run(1);
  assert.ok(messages.some((message) => message.$case === 'preempted' && message.value.handle === 2));
  for (let i = 0; i < 200 && core.sequences.length > 1; i++) run(1);
  for (let i = 0; i < 20 && core.sequences[0]?.holes.length !== 0; i++) run(1);
  run(2);
  assert.deepEqual(core.sequences[0]?.holes, []);
  assert.deepEqual(plan({ handle: 2, epoch: 0, merges: [{ into: [2], from: [3] }] }).requests[0]?.rejected, [
    { reason: Reject.REJECT_STALE_EPOCH, blocks: [] },
  ]);
});

test('the prompt, sinks, the newest tokens and the tail are outside the evictable range', () => {
  const protection = { sinkTokens: 4, recentTokens: 16 };
  assert.deepEqual(evictableRange(10, 100, 8, protection), { from: 2, to: 10 });
  assert.deepEqual(evictableRange(1, 100, 8, protection), { from: 1, to: 10 });
  assert.deepEqual(evictableRange(0, 100, 8, { sinkTokens: 0, recentTokens: 0 }), { from: 0, to: 12 });
  assert.deepEqual(evictableRange(40, 45, 8, protection), { from: 5, to: 5 });
});

test('steps without a stream count as missed, and a snapshot says what is alive', () => {
  const { core, messages, run, plan } = attached();
  core.submit(request('a', 10, { maxTokens: 80 }));
  run(50);
  plan({ evict: [2] });
  core.detach();
  const said = messages.length;
  run(5);
  assert.equal(messages.length, said);
  assert.equal(core.stats().policy.missedSteps, 5);
  core.attach({ headGroups: [], measureEvery: 1, probeTokens: 4, statistics: undefined });
  const snapshot = messages.at(-1);
  assert.ok(snapshot?.$case === 'snapshot');
  assert.deepEqual(
    snapshot.value.requests.map(({ handle, evicted, crystalkvId }) => ({ handle, evicted, crystalkvId })),
    [{ handle: 1, evicted: [2], crystalkvId: 'a' }],
  );
});

test('the end-of-sequence token, a stop token and the length end a sequence, each with its reason', () => {
  const reasons: string[] = [];
  const run = (sampling: Parameters<typeof request>[2], script: (position: number) => number, maxModelLength = 256) => {
    const core = new EngineCore(coreOptions({ maxModelLength }), new ScriptedModel(8, script), {
      event: (_, event) => event.type === 'finished' && reasons.push(`${event.reason} ${event.generatedTokens}`),
      report: () => {},
    });
    core.submit(request('a', 4, sampling));
    for (let i = 0; i < 40; i++) core.step();
  };
  run({}, (position) => (position === 9 ? EOS : 5));
  run({ ignoreEos: true, maxTokens: 20 }, (position) => (position === 9 ? EOS : 5));
  run({ stopTokenIds: [6] }, (position) => (position === 7 ? 6 : 5));
  run({}, () => 5, 16);
  assert.deepEqual(reasons, ['stop 6', 'length 20', 'stop 4', 'length 12']);
});
