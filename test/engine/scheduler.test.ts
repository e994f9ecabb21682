import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlockPool, prefixHashes } from '../../engine/core/block-pool.ts';
import { EngineCore } from '../../engine/core/engine-core.ts';
import { coreOptions, request, ScriptedModel } from './scripted-model.ts';

function engine(change: Parameters<typeof coreOptions>[0] = {}) {
  const outputs = new Map<string, number[]>();
  const cached = new Map<string, number>();
  const ended: string[] = [];
  const core = new EngineCore(coreOptions(change), new ScriptedModel(8), {
    event: (id, event) => {
      if (event.type === 'token') outputs.set(id, [...(outputs.get(id) ?? []), event.tokenId]);
      else {
        cached.set(id, event.cachedTokens);
        ended.push(id);
      }
    },
    report: () => {},
  });
  const drain = () => {
    for (let i = 0; core.hasWork; i++) {
      assert.ok(i < 10_000, 'the engine does not come to an end');
      core.step();
    }
  };
  return { core, outputs, cached, ended, drain };
}

test('a long prompt is prefilled in chunks, and others decode meanwhile', () => {
  const { core, outputs } = engine({ maxTokensPerStep: 16 });
  core.submit(request('short', 4));
  core.step();
  core.submit(request('long', 60));
  const counts: number[] = [];
  for (let i = 0; i < 4; i++) {
    core.step();
    counts.push(outputs.get('short')!.length);
  }
  assert.deepEqual(counts, [2, 3, 4, 5]);
  assert.equal(outputs.get('long')?.length, 1);
});

test('a pool that is too small preempts, finishes, and the tokens are the same', () => {
  const roomy = engine();
  const tight = engine({ poolBlocks: 12, maxModelLength: 96 });
  for (const { core, drain } of [roomy, tight]) {
    for (let i = 0; i < 5; i++) core.submit(request(`r${i}`, 9 + i, { maxTokens: 50 }));
    drain();
  }
  assert.ok(tight.core.stats().preemptions > 0);
  assert.deepEqual(tight.outputs, roomy.outputs);
  assert.equal(tight.core.stats().freeBlocks, 12);
});

test('a preempted sequence runs again before those that came later', () => {
  const { core, ended, drain } = engine({ poolBlocks: 12, maxModelLength: 96 });
  for (let i = 0; i < 5; i++) core.submit(request(`r${i}`, 9 + i, { maxTokens: 50 }));
  drain();
  assert.ok(core.stats().preemptions > 0);
  assert.deepEqual(ended, ['r0', 'r1', 'r2', 'r3', 'r4']);
});

test('a second request finds the full blocks of the same prompt, but always computes the last token', () => {
  const { core, cached, drain } = engine();
  core.submit(request('first', 24));
  drain();
  core.submit(request('second', 24));
  core.submit(request('longer', 30));
  drain();
  assert.deepEqual(Object.fromEntries(cached), { first: 0, second: 16, longer: 24 });
  const { prefixCacheQueries, prefixCacheHits } = core.stats();
  assert.deepEqual([prefixCacheQueries, prefixCacheHits], [78, 40]);
});

test('no more sequences run than allowed; the others wait in order', () => {
  const { core, drain } = engine({ maxSequences: 2 });
  for (const id of ['a', 'b', 'c']) core.submit(request(id, 4));
  core.step();
  assert.deepEqual([core.stats().running, core.stats().waiting], [2, 1]);
  drain();
  assert.equal(core.stats().finished.length, 3);
});

test('an aborted sequence says so once and gives its blocks back, waiting or running', () => {
  const { core } = engine({ maxSequences: 1 });
  core.submit(request('a', 20));
  core.submit(request('b', 20));
  core.step();
  core.abort('a');
  core.abort('b');
  core.abort('b');
  assert.equal(core.hasWork, false);
  assert.equal(core.stats().finished.abort, 2);
  assert.equal(core.stats().freeBlocks, core.stats().totalBlocks);
});

test('the pool reuses blocks without a hash first, and forgets a hash when its block is reused', () => {
  const pool = new BlockPool(4, 8);
  const [a, b, c] = pool.allocate(3) as [number, number, number];
  const [first, second] = prefixHashes([1, 2, 3, 4], 2) as [string, string];
  pool.publish(a, first);
  pool.publish(b, second);
  pool.release([c, b, a]);
  assert.deepEqual(pool.lookUp([first, second]), [a, b]);
  assert.deepEqual(new Set(pool.allocate(2)), new Set([c, 4]));
  assert.deepEqual(pool.allocate(1), [b]);
  assert.deepEqual(pool.lookUp([first, second]), [a]);
  pool.share(a);
  assert.equal(pool.free, 0);
  assert.throws(() => pool.allocate(1), /1 blocks asked for, 0 are free/);
  pool.release([a]);
  assert.throws(() => pool.release([a]), /freed twice/);
});

test('blocks without a hash are reused first, wherever they stood among those that were freed', () => {
  const pool = new BlockPool(3, 8);
  const [a, b, c] = pool.allocate(3) as [number, number, number];
  pool.publish(a, 'x');
  pool.publish(b, 'y');
  pool.release([a, b, c]);
  assert.deepEqual(pool.allocate(1), [c]);
});

test('prefix hashes depend on everything before', () => {
  const hashes = prefixHashes([1, 2, 3, 4, 5], 2);
  assert.equal(hashes.length, 2);
  assert.notEqual(hashes[1], prefixHashes([9, 2, 3, 4], 2)[1]);
  assert.equal(hashes[1], prefixHashes([1, 2, 3, 4], 2)[1]);
});
