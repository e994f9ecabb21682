import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reject } from '../../proto/gen/crystalkv/v1/policy.ts';
import { attached } from './attached.ts';
import { request } from './scripted-model.ts';

// Blocks of 8, a prompt of 10 tokens, the newest 8 protected: after 50 steps blocks 2 to 5 may go.
const open = (change = {}) => {
  const engine = attached(change);
  engine.core.submit(request('a', 10));
  engine.run(50);
  const lastStep = () => {
    const step = engine.messages.findLast((message) => message.$case === 'step');
    assert.ok(step?.$case === 'step');
    return step.value.requests.find(({ handle }) => handle === 1)!;
  };
  return { ...engine, lastStep };
};

test('a shadow plan carries nothing out, and says what would have become a hole', () => {
  const { core, plan, model } = open();
  const free = core.pool.free;
  const ack = plan({ shadow: { begin: true, evict: [2], merges: [{ into: [3], from: [4] }] } });
  const [answer] = ack.requests;
  assert.deepEqual([answer?.evicted, answer?.merged, answer?.rejected], [[], [], []]);
  assert.deepEqual(answer?.shadowEvicted, [2, 4]);
  assert.deepEqual([core.sequences[0]?.holes, core.pool.free, model.merged], [[], free, []]);
  assert.deepEqual([core.stats().evictedBlocks, core.stats().merges], [0, 0]);
});

test('what would be gone is refused as if it were, until a plan begins anew', () => {
  const { plan } = open();
  plan({ shadow: { merges: [{ into: [3, 5], from: [2] }] } });
  const [answer] = plan({ shadow: { evict: [2, 3], merges: [{ into: [4], from: [2] }] } }).requests;
  assert.deepEqual(answer?.shadowEvicted, [3]);
  assert.deepEqual(answer?.rejected, [{ reason: Reject.REJECT_NOT_RESIDENT, blocks: [2, 2] }]);
  assert.deepEqual(plan({ shadow: { begin: true, evict: [2, 3] } }).requests[0]?.shadowEvicted, [2, 3]);
});

test('a shadow plan is refused for the same reasons as a real one', () => {
  const { plan, core } = open();
  const rule = { stages: [], seed: 0 };
  const [answer] = plan({
    shadow: {
      evict: [0, 99],
      merges: [
        { into: [3], from: [] },
        { into: [2], from: [6] },
        { into: [3], from: [4], rule },
      ],
    },
  }).requests;
  assert.deepEqual(answer?.shadowEvicted, []);
  assert.deepEqual(answer?.rejected, [
    { reason: Reject.REJECT_PROTECTED, blocks: [0, 6] },
    { reason: Reject.REJECT_OUT_OF_RANGE, blocks: [99] },
    { reason: Reject.REJECT_INVALID_MERGE, blocks: [3] },
    { reason: Reject.REJECT_UNKNOWN_RULE, blocks: [4] },
  ]);
  plan({ probe: true });
  assert.equal(core.sequences.length, 2);
  const shared = plan({ shadow: { merges: [{ into: [3], from: [2] }] } }).requests[0];
  assert.deepEqual(shared?.rejected, [{ reason: Reject.REJECT_SHARED, blocks: [2, 3] }]);
});

test('marks end with a preemption, a lost stream, and a plan that is carried out', () => {
  const { core, plan } = open();
  const marks = () => plan({ epoch: core.sequences[0]!.epoch, shadow: { evict: [2] } }).requests[0]?.shadowEvicted;
  assert.deepEqual(marks(), [2]);
  assert.deepEqual(marks(), []);
  plan({ evict: [3] });
  assert.equal(core.sequences[0]?.shadow, undefined);
  assert.deepEqual(marks(), [2]);
  plan({ merges: [{ into: [4], from: [5] }] });
  assert.deepEqual(marks(), [2]);
  core.detach();
  assert.equal(core.sequences[0]?.shadow, undefined);
  core.sequences[0]!.shadow = undefined;
});

test('a preempted request has nothing marked when it comes back', () => {
  const { core, plan, run } = attached({ poolBlocks: 14, maxSequences: 2 });
  core.submit(request('a', 10));
  core.submit(request('b', 10));
  run(30);
  const second = () => core.sequences.find(({ request: { id } }) => id === 'b')!;
  plan({ handle: 2, shadow: { evict: [2] } });
  assert.notEqual(second().shadow, undefined);
  run(30);
  assert.ok(second().epoch > 0, 'it was preempted');
  assert.equal(second().shadow, undefined);
});
