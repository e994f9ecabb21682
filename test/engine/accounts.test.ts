import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EngineCore } from '../../engine/core/engine-core.ts';
import { evictableRange } from '../../engine/core/evict.ts';
import type { Sequence } from '../../engine/core/sequence.ts';
import type { Report } from '../../engine/types.ts';
import type { Merge } from '../../proto/gen/crystalkv/v1/policy.ts';
import { coreOptions, request, ScriptedModel } from './scripted-model.ts';

type Operation =
  | { kind: 'submit'; prompt: number; tokens: number }
  | { kind: 'abort'; pick: number }
  | { kind: 'plan'; pick: number; blocks: number[]; merges: MergeWish[]; probe: boolean; epochOffset: number }
  | { kind: 'steps'; count: number }
  | { kind: 'reconnect' };

const index = fc.integer({ min: 0, max: 20 });
/** `count` of the blocks are to be freed. Aimed: the blocks are picked among those that may be merged. */
interface MergeWish {
  blocks: number[];
  count: number;
  aimed: boolean;
}

const wish: fc.Arbitrary<MergeWish> = fc.record({
  blocks: fc.array(index, { minLength: 2, maxLength: 5 }),
  count: fc.integer({ min: 0, max: 3 }),
  aimed: fc.constantFrom(true, true, true, false),
});

function mergeOf({ blocks, count, aimed }: MergeWish, sequence: Sequence): Merge {
  const { from, to } = evictableRange(sequence.promptTokens, sequence.computed, 8, coreOptions().protection);
  const free = sequence.holes;
  const fit = sequence.blocks.flatMap((_, i) => (i >= from && i < to && !free.includes(i) ? [i] : []));
  const picked = aimed && fit.length > 1 ? [...new Set(blocks.map((pick) => fit[pick % fit.length]!))] : blocks;
  return { into: picked.slice(count), from: picked.slice(0, count), rule: undefined };
}

const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('submit' as const),
      prompt: fc.integer({ min: 1, max: 30 }),
      tokens: fc.integer({ min: 1, max: 150 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('abort' as const), pick: fc.nat(20) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('plan' as const),
      pick: fc.nat(20),
      blocks: fc.array(index, { maxLength: 4 }),
      merges: fc.array(wish, { maxLength: 3 }),
      probe: fc.boolean(),
      epochOffset: fc.constantFrom(0, 0, 0, 1),
    }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('steps' as const), count: fc.integer({ min: 1, max: 40 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reconnect' as const) }) },
);

/** Every reference is a place in a live block table, and every block is either referenced or free. */
function checkAccounts(core: EngineCore): void {
  const references = new Map<number, number>();
  for (const sequence of core.sequences) {
    for (const block of sequence.blocks) {
      if (block !== 0) references.set(block, (references.get(block) ?? 0) + 1);
    }
    assert.ok(sequence.computed <= sequence.tokenIds.length);
  }
  for (let block = 1; block <= core.pool.total; block++) {
    assert.equal(core.pool.references(block), references.get(block) ?? 0, `references of block ${block}`);
  }
  assert.equal(core.pool.free, core.pool.total - references.size, 'free blocks');
}

/** The service's view, kept from what the engine says: its holes must be the table's holes. */
class Mirror {
  holes = new Map<number, Set<number>>();

  take(message: Report): void {
    if (message.$case === 'snapshot') {
      this.holes = new Map(message.value.requests.map((started) => [started.handle, new Set(started.evicted)]));
    } else if (message.$case === 'started') this.holes.set(message.value.handle, new Set(message.value.evicted));
    else if (message.$case === 'finished') this.holes.delete(message.value.handle);
    else if (message.$case === 'preempted') this.holes.get(message.value.handle)?.clear();
    else if (message.$case === 'ack') {
      for (const { handle, evicted } of message.value.requests) {
        for (const index of evicted) this.holes.get(handle)?.add(index);
      }
    } else if (message.$case === 'step') {
      for (const { handle, computedTokens, masses } of message.value.requests) {
        const holes = this.holes.get(handle);
        assert.ok(holes !== undefined, `a step of the unknown sequence ${handle}`);
        if (masses.length > 0) assert.equal(masses.length, 2 * (Math.ceil(computedTokens / 8) - holes.size));
      }
    }
  }
}

test('1,000 random sequences of arrivals, evictions, merges, probes, aborts and preemptions keep the block accounts', () => {
  let preemptions = 0;
  let evictions = 0;
  let merges = 0;
  let probes = 0;
  fc.assert(
    fc.property(fc.array(operation, { minLength: 10, maxLength: 60 }), (operations) => {
      const mirror = new Mirror();
      let ended = 0;
      let submitted = 0;
      const core = new EngineCore(coreOptions({ poolBlocks: 24, maxModelLength: 180 }), new ScriptedModel(8), {
        event: (_, event) => {
          if (event.type === 'finished') ended += 1;
        },
        report: (message) => mirror.take(message),
      });
      const configure = { headGroups: [], measureEvery: 1, probeTokens: 6, statistics: undefined };
      core.attach(configure);
      for (const [i, op] of operations.entries()) {
        if (op.kind === 'submit') {
          submitted += 1;
          core.submit(request(`r${i}`, op.prompt, { maxTokens: op.tokens }));
        } else if (op.kind === 'reconnect') {
          core.detach();
          core.attach(configure);
        } else if (op.kind === 'steps') {
          for (let n = 0; n < op.count; n++) {
            core.step();
            checkAccounts(core);
          }
        } else {
          const target = core.sequences[op.pick % Math.max(1, core.sequences.length)];
          if (target === undefined) continue;
          if (op.kind === 'abort') core.abort(target.request.id);
          else {
            const entry = {
              handle: target.handle,
              epoch: target.epoch + op.epochOffset,
              evict: op.blocks,
              merges: op.merges.map((one) => mergeOf(one, target)),
              probe: op.probe,
              releaseThinking: false,
            };
            core.plan({
              sequence: BigInt(i),
              basedOnStep: BigInt(core.lastStep),
              requests: [entry],
              stopProbes: op.blocks,
            });
          }
        }
        checkAccounts(core);
      }
      for (let n = 0; core.hasWork; n++) {
        assert.ok(n < 5000, 'the engine does not come to an end');
        core.step();
      }
      checkAccounts(core);
      const stats = core.stats();
      assert.equal(stats.freeBlocks, stats.totalBlocks);
      assert.equal(ended, submitted);
      preemptions += stats.preemptions;
      evictions += stats.evictedBlocks;
      merges += stats.merges;
      probes += stats.probes;
    }),
    { numRuns: 1000 },
  );
  const counts = { preemptions, evictions, merges, probes };
  assert.ok(preemptions > 300 && evictions > 300 && merges > 100 && probes > 100, JSON.stringify(counts));
});
