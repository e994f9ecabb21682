import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BlockTable } from '../../policy-service/request/block-table.ts';

const geometry = { blockSize: 16, promptTokens: 40, sinkTokens: 4, recentTokens: 32 };

function candidatesOf(table: BlockTable): number[] {
  const out = new Int32Array(256);
  return [...out.subarray(0, table.candidates(out))];
}

test('only full blocks beyond the prompt and before the newest tokens are candidates', () => {
  const table = new BlockTable(geometry);
  table.advance(40);
  assert.deepEqual(candidatesOf(table), []);
  table.advance(95);
  assert.equal(table.first, 3);
  assert.deepEqual(candidatesOf(table), []);
  table.advance(96);
  assert.deepEqual(candidatesOf(table), [3]);
  table.advance(130);
  assert.deepEqual(candidatesOf(table), [3, 4, 5]);
});

test('attention sinks are protected when they reach beyond the prompt', () => {
  const table = new BlockTable({ ...geometry, promptTokens: 3, sinkTokens: 20 });
  table.advance(100);
  assert.deepEqual(candidatesOf(table), [2, 3]);
});

test('blocks under way are no candidates, and come back when the engine did not evict them', () => {
  const table = new BlockTable(geometry);
  table.advance(130);
  for (const block of [3, 4]) table.markPending(block);
  assert.deepEqual(candidatesOf(table), [5]);
  assert.equal(table.resident, 9);
  table.markHoles([3]);
  table.restore([3, 4]);
  assert.deepEqual(candidatesOf(table), [4, 5]);
  assert.deepEqual([table.resident, table.holes, table.pending], [8, 1, 0]);
});

test('a refused block is not asked for again before another block was filled', () => {
  const table = new BlockTable(geometry);
  table.advance(130);
  table.refuse([3]);
  assert.deepEqual(candidatesOf(table), [4, 5]);
  table.advance(146);
  assert.deepEqual(candidatesOf(table), [3, 4, 5, 6]);
});

test('the budget counts the unfilled tail and the block that the next token needs', () => {
  const table = new BlockTable({ ...geometry, promptTokens: 32 });
  table.advance(64);
  assert.equal(table.outputBlocksAt(64), 2);
  assert.equal(table.outputBlocksAt(65), 3);
});

test('after a preemption nothing is gone', () => {
  const table = new BlockTable(geometry);
  table.advance(130);
  table.markHoles([3]);
  table.markPending(4);
  table.reset();
  assert.deepEqual([table.blocks, table.gone, table.resident], [0, 0, 0]);
  table.advance(130);
  assert.deepEqual(candidatesOf(table), [3, 4, 5]);
});

test('counts and the list of live blocks agree after any sequence of reports', () => {
  const action = fc.oneof(
    fc.record({ kind: fc.constant('grow' as const), by: fc.integer({ min: 1, max: 40 }) }),
    fc.record({
      kind: fc.constantFrom('pend' as const, 'hole' as const, 'restore' as const, 'shadow' as const),
      block: fc.nat(40),
    }),
    fc.record({ kind: fc.constant('reset' as const) }),
    fc.record({ kind: fc.constant('clear' as const) }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const table = new BlockTable(geometry);
      for (const one of actions) {
        if (one.kind === 'grow') table.advance(table.tokens + one.by);
        else if (one.kind === 'hole') table.markHoles([one.block]);
        else if (one.kind === 'restore') table.restore([one.block]);
        else if (one.kind === 'reset') table.reset();
        else if (one.kind === 'clear') table.clearVirtual();
        else if (candidatesOf(table).includes(one.block)) {
          if (one.kind === 'pend') table.markPending(one.block);
          else table.markVirtual(one.block);
        }
        const holes = Array.from({ length: table.blocks }, (_, block) => block).filter((block) => table.isHole(block));
        assert.equal(table.holes, holes.length);
        const live = Array.from({ length: table.blocks }, (_, block) => block).filter(
          (block) => block >= table.first && !table.isHole(block),
        );
        assert.deepEqual([...table.live.subarray(0, table.liveCount)], live);
        assert.equal(table.headColumns + table.liveCount, table.resident);
        const free = candidatesOf(table).length;
        assert.equal(free + table.pending + table.virtual, table.liveEvictable);
      }
    }),
    { numRuns: 300 },
  );
});
