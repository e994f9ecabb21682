import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FinishReason, ProbeAnswer } from '../../proto/gen/crystalkv/v1/policy.ts';
import { attached } from './attached.ts';
import { END_OF_THINKING, request } from './scripted-model.ts';

test('a probe reads the parent with its holes, reports to the service only, and gives everything back', () => {
  const { core, messages, run, plan, tokensOf } = attached();
  core.submit(request('a', 10, { maxTokens: 80 }));
  run(50);
  plan({ evict: [2] });
  const free = core.pool.free;
  const generated = tokensOf('a').length;
  const ack = plan({ probe: true });
  assert.equal(ack.requests[0]?.probe, ProbeAnswer.PROBE_ANSWER_STARTED);
  const started = messages.findLast((message) => message.$case === 'started');
  assert.ok(started?.$case === 'started');
  assert.equal(started.value.parentHandle, 1);
  assert.deepEqual(started.value.evicted, [2]);
  assert.equal(started.value.computedTokens % 8, 0);
  // the parent may lose a block that only its own probe shares
  assert.deepEqual(plan({ evict: [3] }).requests[0]?.evicted, [3]);
  run(4);
  const finished = messages.findLast((message) => message.$case === 'finished');
  assert.ok(finished?.$case === 'finished' && finished.value.handle === started.value.handle);
  assert.ok(finished.value.probeTokens >= 4);
  assert.equal(core.sequences.length, 1);
  // one block more is free than before (the evicted one), less what the parent took since
  const grown = core.sequences[0]!.blocks.length - core.sequences[0]!.holes.length;
  assert.equal(core.pool.free, core.pool.total - grown);
  assert.ok(core.pool.free >= free - 1);
  assert.equal(tokensOf('a').length, generated + 6);
});

test('a probe that has said enough is ended as if its answer had ended; other handles are passed over', () => {
  const { core, messages, run, plan } = attached();
  core.submit(request('a', 10));
  run(20);
  plan({ probe: true });
  const [parent, probe] = core.sequences;
  const blocks = parent!.blocks.length;
  core.plan({ sequence: 10n, basedOnStep: BigInt(core.lastStep), requests: [], stopProbes: [1, 77, probe!.handle] });
  run(1);
  const last = messages.findLast((message) => message.$case === 'finished');
  assert.ok(last?.$case === 'finished');
  assert.equal(last.value.handle, probe!.handle);
  assert.equal(last.value.reason, FinishReason.FINISH_REASON_STOP);
  assert.ok(last.value.probeTokens >= 1);
  assert.deepEqual(core.sequences, [parent]);
  assert.equal(core.pool.total - core.pool.free, Math.max(blocks, parent!.blocks.length));
  // it may be probed again
  assert.equal(plan({ probe: true }).requests[0]?.probe, ProbeAnswer.PROBE_ANSWER_STARTED);
});

test('a probe is refused after the end of thinking and where there is no room', () => {
  const answering = attached({}, (position) => (position === 30 ? END_OF_THINKING : 5));
  answering.core.submit(request('a', 10, { maxTokens: 80 }));
  answering.run(40);
  assert.equal(answering.core.sequences[0]?.phase, 'answer');
  assert.equal(answering.plan({ probe: true }).requests[0]?.probe, ProbeAnswer.PROBE_ANSWER_UNSUPPORTED);

  const tight = attached({ poolBlocks: 10, maxModelLength: 80 });
  tight.core.submit(request('a', 10, { maxTokens: 69 }));
  tight.run(58);
  assert.equal(tight.plan({ probe: true }).requests[0]?.probe, ProbeAnswer.PROBE_ANSWER_NO_ROOM);
  assert.equal(tight.core.stats().preemptions, 0);
});

test('a request has one probe at a time', () => {
  const { core, run, plan } = attached();
  core.submit(request('a', 10));
  run(20);
  const answer = () => plan({ probe: true }).requests[0]?.probe;
  assert.equal(answer(), ProbeAnswer.PROBE_ANSWER_STARTED);
  assert.equal(answer(), ProbeAnswer.PROBE_ANSWER_NO_ROOM);
  run(8);
  assert.equal(answer(), ProbeAnswer.PROBE_ANSWER_STARTED);
});

test('a probe ends with its parent, and with its stream', () => {
  const ending = attached();
  ending.core.submit(request('a', 10, { maxTokens: 80 }));
  ending.run(50);
  ending.plan({ probe: true });
  ending.core.abort('a');
  assert.equal(ending.core.sequences.length, 0);
  assert.equal(ending.core.pool.free, ending.core.pool.total);

  const losing = attached();
  losing.core.submit(request('a', 10, { maxTokens: 80 }));
  losing.run(50);
  losing.plan({ probe: true });
  losing.core.detach();
  assert.equal(losing.core.sequences.length, 1);
});

test('a probe publishes nothing to the prefix cache', () => {
  const { core, run, plan, events } = attached();
  core.submit(request('a', 10));
  run(40);
  plan({ probe: true });
  run(8);
  // its prompt holds what the probe was forked from: only the one full block of a's own prompt was published
  const promptTokenIds = core.sequences[0]!.tokenIds.slice(0, 33);
  core.submit({ ...request('b', 4, { maxTokens: 2 }), promptTokenIds });
  run(8);
  const end = events.find(({ id, event }) => id === 'b' && event.type === 'finished');
  assert.ok(end?.event.type === 'finished');
  assert.equal(end.event.cachedTokens, 8);
});

test('a probe that ends in the same step as its request is reported once, and counted once', () => {
  for (let maxTokens = 28; maxTokens < 40; maxTokens++) {
    const { core, messages, run, plan } = attached();
    core.submit(request('a', 10, { maxTokens }));
    run(26);
    plan({ probe: true });
    run(20);
    const finished = messages.flatMap((message) => (message.$case === 'finished' ? [message.value] : []));
    assert.deepEqual(finished.map(({ handle }) => handle).sort(), [1, 2], `${maxTokens} tokens`);
    assert.equal(core.stats().probeTokens, finished.find(({ handle }) => handle === 2)?.probeTokens);
  }
});

test('a probe leaves a spare block for each running sequence and one more, and takes the last that is not spare', () => {
  // 26 computed tokens share 3 full blocks; 27 known ones, 1 that ends thinking and 4 of answer need 1 more
  const probed = (poolBlocks: number) => {
    const engine = attached({ poolBlocks, maxModelLength: 64 });
    engine.core.submit(request('a', 10, { maxTokens: 40 }));
    engine.core.submit(request('b', 10, { maxTokens: 40 }));
    engine.run(17);
    const { free } = engine.core.pool;
    return { ...engine, free, answer: engine.plan({ probe: true }).requests[0]?.probe };
  };
  const needed = 1;
  const spare = 3;
  const taken = 8;
  const enough = probed(taken + needed + spare);
  assert.equal(enough.free, needed + spare);
  assert.equal(enough.answer, ProbeAnswer.PROBE_ANSWER_STARTED);
  assert.equal(probed(taken + needed + spare - 1).answer, ProbeAnswer.PROBE_ANSWER_NO_ROOM);
});

test('when a probe is dropped for a request, those that come after it lose no step', () => {
  let dropped = 0;
  for (let poolBlocks = 16; poolBlocks < 40; poolBlocks++) {
    const { core, messages, run, plan, tokensOf } = attached({ poolBlocks, maxModelLength: 128 }, undefined, 60);
    core.submit(request('a', 9));
    run(3);
    if (plan({ probe: true }).requests[0]?.probe !== ProbeAnswer.PROBE_ANSWER_STARTED) continue;
    for (const [id, prompt] of [
      ['b', 12],
      ['c', 14],
      ['d', 9],
    ] as const)
      core.submit(request(id, prompt));
    run(1);
    while (core.sequences.some(({ fork }) => fork !== undefined)) {
      const before = ['b', 'c', 'd'].map((id) => tokensOf(id).length);
      const { waiting, preemptions } = core.stats();
      run(1);
      if (waiting > 0 || core.stats().preemptions > preemptions) break;
      assert.deepEqual(
        ['b', 'c', 'd'].map((id) => tokensOf(id).length),
        before.map((n) => n + 1),
        `pool ${poolBlocks}`,
      );
    }
    if (messages.some((m) => m.$case === 'finished' && m.value.reason === FinishReason.FINISH_REASON_DROPPED))
      dropped += 1;
  }
  assert.ok(dropped > 0);
});
