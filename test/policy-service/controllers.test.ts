import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Controller, Member, Pool } from '../../policy-service/controllers/controller.ts';
import { createFixedController } from '../../policy-service/controllers/fixed.ts';
import { createPressureController } from '../../policy-service/controllers/pressure.ts';
import { BlockTable } from '../../policy-service/request/block-table.ts';

type Facts = Partial<Pick<Member, 'budgetBlocks' | 'isAnswering' | 'merges'>> & { value?: (block: number) => number };

/** A request with a prompt of two blocks, whose blocks are worth their index unless `value` says otherwise. */
function member(
  outputBlocks: number,
  { budgetBlocks, isAnswering = false, merges = false, value = (b) => b }: Facts = {},
): Member {
  const table = new BlockTable({ blockSize: 16, promptTokens: 32, sinkTokens: 0, recentTokens: 32 });
  table.advance(32 + outputBlocks * 16);
  return {
    table,
    budgetBlocks,
    isAnswering,
    merges,
    ranking: {
      comparableValues(out, at) {
        const blocks = new Int32Array(table.liveCount);
        const count = table.candidates(blocks);
        for (let i = 0; i < count; i += 1) out[at + i] = value(blocks[i]!);
        return count;
      },
      demand: () => 1,
    },
  };
}

function pool(freeBlocks: number, changes: Partial<Pool> = {}): Pool {
  return { freeBlocks, totalBlocks: 100, waiting: 0, promisedBlocks: 0, ...changes };
}

function quotas(controller: Controller, members: Member[], state: Pool): number[] {
  const out: number[] = [];
  controller.quotas(members, state, out);
  return out;
}

const watermarks = {
  lowFreeShare: 0.1,
  highFreeShare: 0.2,
  probeFreeShare: 0.4,
  floorTokens: 64,
  floorShare: 0,
  answerFloorShare: 0,
  mergeFloorTokens: 64,
  mergeFloorShare: 0.5,
};

test('fixed: the next block is made room for before it is allocated', () => {
  // Ten full output blocks, and the next token begins the eleventh.
  assert.deepEqual(
    quotas(createFixedController(), [member(10, { budgetBlocks: 11 }), member(10, { budgetBlocks: 10 })], pool(0)),
    [0, 1],
  );
});

test('fixed: holes and blocks under way count as gone', () => {
  const one = member(10, { budgetBlocks: 8 });
  one.table.markHoles([2]);
  one.table.markPending(3);
  assert.deepEqual(quotas(createFixedController(), [one], pool(0)), [1]);
});

test('fixed: a request that holds nothing gives nothing', () => {
  const one = member(10, { budgetBlocks: 2 });
  one.table.reset();
  assert.deepEqual(quotas(createFixedController(), [one], pool(0)), [0]);
});

test('fixed: an eviction is expected when the tokens ahead do not fit the budget', () => {
  const controller = createFixedController();
  const one = member(6, { budgetBlocks: 8 });
  assert.equal(controller.expectsEviction(one, pool(0), 31), false);
  assert.equal(controller.expectsEviction(one, pool(0), 32), true);
});

test('pressure: nothing goes while memory is free, also when requests wait', () => {
  const controller = createPressureController(watermarks);
  assert.deepEqual(quotas(controller, [member(30)], pool(10)), [0]);
  assert.deepEqual(quotas(controller, [member(30)], pool(20, { waiting: 5 })), [0]);
});

test('pressure: below the low watermark blocks go until the high one is reached, then none', () => {
  const controller = createPressureController(watermarks);
  assert.deepEqual(quotas(controller, [member(30)], pool(9)), [11]);
  assert.deepEqual(quotas(controller, [member(30)], pool(15)), [5]);
  assert.deepEqual(quotas(controller, [member(30)], pool(20)), [0]);
  assert.deepEqual(quotas(controller, [member(30)], pool(15)), [0]);
});

test('pressure: waiting requests count below the high watermark', () => {
  assert.deepEqual(quotas(createPressureController(watermarks), [member(30)], pool(15, { waiting: 1 })), [5]);
});

test('pressure: blocks under way count as free', () => {
  const controller = createPressureController(watermarks);
  assert.deepEqual(quotas(controller, [member(30)], pool(5, { promisedBlocks: 3 })), [12]);
});

test('pressure: the least valuable blocks go, whoever has them', () => {
  const rich = member(30, { value: (block) => 100 + block });
  const poor = member(30);
  // 26 of the poor one's 30 blocks may leave before its floor of four, and two of its newest are protected.
  assert.deepEqual(quotas(createPressureController(watermarks), [rich, poor], pool(8)), [0, 12]);
  const options = { ...watermarks, highFreeShare: 0.4 };
  assert.deepEqual(quotas(createPressureController(options), [rich, poor], pool(8)), [5, 27]);
});

test('pressure: merges take from the longest requests, down to a floor of their own', () => {
  const members = [member(8, { merges: true }), member(30, { merges: true }), member(20, { merges: true })];
  assert.deepEqual(quotas(createPressureController(watermarks), members, pool(9)), [0, 11, 0]);
  // 31, 21 and 9 blocks when the next token is there; half of them are the floor
  const options = { ...watermarks, highFreeShare: 0.6 };
  assert.deepEqual(quotas(createPressureController(options), members, pool(9)), [4, 15, 10]);
});

test('pressure: requests whose blocks are worth the same give alike', () => {
  const given = quotas(createPressureController(watermarks), [member(30), member(30)], pool(8));
  assert.deepEqual(given, [6, 6]);
});

const crowd = fc.array(
  fc.record({ blocks: fc.integer({ min: 1, max: 40 }), seed: fc.integer(), gone: fc.array(fc.nat(40)) }),
  { minLength: 1, maxLength: 12 },
);

test('pressure: what goes is worth no more than anything that stays above a floor, and it is as much as needed', () => {
  fc.assert(
    fc.property(crowd, fc.nat(100), fc.double({ min: 0, max: 1, noNaN: true }), (requests, free, floorShare) => {
      const members = requests.map(({ blocks, seed, gone }) => {
        const one = member(blocks, { value: (block) => Math.sin(seed + block * 7) });
        one.table.markHoles(gone.filter((block) => block >= one.table.first && block < one.table.last));
        return one;
      });
      const options = { ...watermarks, highFreeShare: 0.5, lowFreeShare: 0.3, floorShare };
      const given = quotas(createPressureController(options), members, pool(free));
      const sorted = members.map((one) => {
        const values = new Float64Array(one.table.liveCount);
        return values.subarray(0, one.ranking.comparableValues(values, 0)).sort();
      });
      const most = members.map((one, i) => {
        const ever = one.table.outputBlocksAt(one.table.tokens + 1) + one.table.gone;
        const floor = Math.max(4, Math.ceil(floorShare * ever));
        return Math.max(0, Math.min(sorted[i]!.length, ever - one.table.gone - floor));
      });
      const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
      assert.equal(sum(given), free < 30 ? Math.min(50 - free, sum(most)) : 0);
      const gone = sorted.flatMap((values, i) => [...values.subarray(0, given[i]!)]);
      const offered = sorted.flatMap((values, i) => [...values.subarray(given[i]!, most[i]!)]);
      assert.ok(Math.max(...gone, Number.NEGATIVE_INFINITY) <= Math.min(...offered, Number.POSITIVE_INFINITY));
      for (const [i, limit] of most.entries()) assert.ok(given[i]! <= limit);
    }),
  );
});

test('pressure: every request keeps a share of all that it ever had', () => {
  const veteran = member(29);
  veteran.table.markHoles([2, 3, 4, 5, 6, 7, 8, 9, 10]);
  // the next token begins block 30: 15 stay, of the 21 that are left
  assert.deepEqual(quotas(createPressureController({ ...watermarks, floorShare: 0.5 }), [veteran], pool(0)), [6]);
});

test('pressure: a request that answers keeps its own share, and no fixed number of tokens', () => {
  const options = { ...watermarks, floorTokens: 320, floorShare: 0.5, answerFloorShare: 0.25 };
  // 31 blocks with the next token's: 20 stay while thinking, 8 while answering
  const given = (isAnswering: boolean) =>
    quotas(createPressureController({ ...options, highFreeShare: 0.9 }), [member(30, { isAnswering })], pool(0));
  assert.deepEqual(given(false), [11]);
  assert.deepEqual(given(true), [23]);
});

test('pressure: every request keeps its floor, and what cannot be had is not asked for', () => {
  assert.deepEqual(quotas(createPressureController(watermarks), [member(6), member(3)], pool(0)), [3, 0]);
});
