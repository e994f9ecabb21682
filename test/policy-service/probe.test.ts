import assert from 'node:assert/strict';
import { test } from 'node:test';
import { linearMass } from '../../policy-service/masses.ts';
import { ProbeMemory, ProbeRun } from '../../policy-service/probe.ts';
import { ProbeSchedule } from '../../policy-service/probe-schedule.ts';

const options = { everyTokens: 64, maxTokens: 16, decay: 0.9, maxExtraShare: 0.1 };

/** One head group; code 0 is a mass of about 0.84. */
function probed(sharedTokens: number, holes: number[], ...steps: number[][]): ProbeRun {
  const run = new ProbeRun(1, sharedTokens, holes, 16);
  for (const codes of steps) {
    assert.ok(run.add(Uint8Array.from(codes), (codes.length + holes.length) * 16, 1));
  }
  return run;
}

test('a probe counts the most of its steps, for the blocks that lie wholly in what it shares', () => {
  const memory = new ProbeMemory();
  memory.fold(probed(40, [], [31, 4, 31], [31, 6, 0, 2]), 0.9);
  assert.equal(memory.seen, 2);
  assert.deepEqual([...memory.masses.subarray(0, 4)], [0, linearMass(4), 0, 0]);
});

test('what probes found before decays and is never lowered by a probe that reads less', () => {
  const memory = new ProbeMemory();
  memory.fold(probed(32, [], [2, 8]), 0.5);
  memory.fold(probed(32, [], [6, 4]), 0.5);
  assert.deepEqual([...memory.masses.subarray(0, 2)], [linearMass(2) / 2, linearMass(4)]);
  assert.equal(memory.count, 2);
});

test('holes of the fork have no column, and keep what earlier probes found of them', () => {
  const memory = new ProbeMemory();
  memory.fold(probed(48, [], [31, 2, 31]), 0.5);
  memory.fold(probed(48, [1], [31, 4]), 0.5);
  assert.deepEqual([...memory.masses.subarray(0, 3)], [0, linearMass(2) / 2, linearMass(4)]);
});

test('masses that do not fit the blocks of the fork are refused', () => {
  const run = new ProbeRun(1, 32, [], 16);
  assert.equal(run.add(Uint8Array.from([1, 2]), 48, 1), false);
  assert.equal(run.add(Uint8Array.from([1]), 16, 1), false);
  assert.equal(run.steps, 0);
});

test('probes are a few blocks apart, one at a time', () => {
  const schedule = new ProbeSchedule(17);
  assert.equal(schedule.isDue(300, 300, 0, 16, options), false, 'nothing to look at yet');
  assert.equal(schedule.isDue(300, 300, 1, 16, options), true);
  schedule.asked(300, 1);
  assert.equal(schedule.isDue(380, 380, 6, 16, options), false, 'one is under way');
  schedule.started(302);
  schedule.ended(10);
  assert.equal(schedule.isDue(340, 340, 4, 16, options), false);
  assert.equal(schedule.isDue(364, 364, 5, 16, options), true);
});

test('probes cost at most their share of the tokens that the request generated', () => {
  const schedule = new ProbeSchedule(17);
  assert.equal(schedule.isDue(1000, 169, 5, 16, options), false);
  assert.equal(schedule.isDue(169, 169, 5, 16, options), false);
  assert.equal(schedule.isDue(170, 170, 5, 16, options), true);
  schedule.asked(170, 5);
  schedule.ended(20);
  assert.equal(schedule.isDue(399, 399, 20, 16, options), false);
  assert.equal(schedule.isDue(400, 400, 20, 16, options), true);
});

test('a probe that the engine had no room for is tried again a block later', () => {
  const schedule = new ProbeSchedule(17);
  schedule.asked(300, 4);
  schedule.declined(300, 16);
  assert.equal(schedule.isDue(315, 315, 4, 16, options), false);
  assert.equal(schedule.isDue(316, 316, 5, 16, options), true);
});

test('a probe whose end was never reported does not end probing for good', () => {
  const schedule = new ProbeSchedule(17);
  schedule.asked(300, 4);
  assert.equal(schedule.isDue(620, 620, 24, 16, options), false);
  assert.equal(schedule.isDue(621, 621, 24, 16, options), true);
});
