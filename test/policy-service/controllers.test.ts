import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlockTable } from '../../policy-service/block-table.ts';
import type { Controller, Member, Pool } from '../../policy-service/controllers/controller.ts';
import { createFixedController } from '../../policy-service/controllers/fixed.ts';
import { createPressureController } from '../../policy-service/controllers/pressure.ts';

function member(outputBlocks: number, budgetBlocks?: number, isAnswering = false): Member {
  const table = new BlockTable({ blockSize: 16, promptTokens: 32, sinkTokens: 0, recentTokens: 32 });
  table.advance(32 + outputBlocks * 16);
  return { table, budgetBlocks, isAnswering };
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
};

test('fixed: the next block is made room for before it is allocated', () => {
  // Ten full output blocks, and the next token begins the eleventh.
  assert.deepEqual(quotas(createFixedController(), [member(10, 11), member(10, 10)], pool(0)), [0, 1]);
});

test('fixed: holes and blocks under way count as gone', () => {
  const one = member(10, 8);
  one.table.markHoles([2]);
  one.table.markPending(3);
  assert.deepEqual(quotas(createFixedController(), [one], pool(0)), [1]);
});

test('fixed: a request that holds nothing gives nothing', () => {
  const one = member(10, 2);
  one.table.reset();
  assert.deepEqual(quotas(createFixedController(), [one], pool(0)), [0]);
});

test('fixed: an eviction is expected when the tokens ahead do not fit the budget', () => {
  const controller = createFixedController();
  const one = member(6, 8);
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

test('pressure: requests give the same share, so long ones give more blocks', () => {
  // 8 and 28 blocks may leave, two are newest in each; the tenth of 28 ranks before the third of 8.
  const given = quotas(createPressureController(watermarks), [member(10), member(30)], pool(8));
  assert.equal(given[0]! + given[1]!, 12);
  assert.deepEqual(given, [2, 10]);
});

test('pressure: a request that has given already is spared until the others have given as much', () => {
  const veteran = member(30);
  veteran.table.markHoles([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
  assert.deepEqual(quotas(createPressureController(watermarks), [veteran, member(30)], pool(8)), [0, 12]);
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
    quotas(createPressureController({ ...options, highFreeShare: 0.9 }), [member(30, undefined, isAnswering)], pool(0));
  assert.deepEqual(given(false), [11]);
  assert.deepEqual(given(true), [23]);
});

test('pressure: every request keeps its floor, and what cannot be had is not asked for', () => {
  assert.deepEqual(quotas(createPressureController(watermarks), [member(6), member(3)], pool(0)), [3, 0]);
});
