import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { linearMass } from '../../policy-service/measure/masses.ts';
import { MeasuredGroups } from '../../policy-service/measure/measured-groups.ts';
import { ProbeMemory, ProbeRun } from '../../policy-service/request/probe.ts';
import { ProbeSchedule, type Progress } from '../../policy-service/request/probe-schedule.ts';

const options = {
  everyTokens: 64,
  growth: 1,
  pressureEveryTokens: 64,
  maxTokens: 16,
  stopAfter: 0,
  decay: 0.9,
  ageTokens: 0,
  maxExtraShare: 0.1,
  creditTokens: 0,
};

/** Where a request stands; blocks are full at multiples of 16. */
function at(tokens: number, generated: number, completedBlocks: number, goneBlocks = 0): Progress {
  return { tokens, generated, completedBlocks, goneBlocks, blockSize: 16 };
}

const READ = 0.2;
const ONE_GROUP = new MeasuredGroups(1);

/** One head group; code 0 is a mass of about 0.84. */
function probed(sharedTokens: number, holes: number[], ...steps: number[][]): ProbeRun {
  const run = new ProbeRun(1, sharedTokens, holes, 16, READ);
  for (const codes of steps) {
    assert.ok(run.add(Uint8Array.from(codes), (codes.length + holes.length) * 16, ONE_GROUP));
  }
  return run;
}

test('a probe counts the most of its steps, for the blocks that lie wholly in what it shares', () => {
  const memory = new ProbeMemory();
  memory.fold(probed(40, [], [31, 4, 31], [31, 6, 0, 2]), { decay: 0.9, ageTokens: 0 });
  assert.equal(memory.seen, 2);
  assert.deepEqual([...memory.masses.subarray(0, 4)], [0, linearMass(4), 0, 0]);
});

test('what probes found before decays and is never lowered by a probe that reads less', () => {
  const memory = new ProbeMemory();
  memory.fold(probed(32, [], [2, 8]), { decay: 0.5, ageTokens: 0 });
  memory.fold(probed(32, [], [6, 4]), { decay: 0.5, ageTokens: 0 });
  assert.deepEqual([...memory.masses.subarray(0, 2)], [linearMass(2) / 2, linearMass(4)]);
  assert.equal(memory.count, 2);
});

test('holes of the fork have no column, and keep what earlier probes found of them', () => {
  const memory = new ProbeMemory();
  memory.fold(probed(48, [], [31, 2, 31]), { decay: 0.5, ageTokens: 0 });
  memory.fold(probed(48, [1], [31, 4]), { decay: 0.5, ageTokens: 0 });
  assert.deepEqual([...memory.masses.subarray(0, 3)], [0, linearMass(2) / 2, linearMass(4)]);
});

test('masses that do not fit the blocks of the fork are refused', () => {
  const run = new ProbeRun(1, 32, [], 16, READ);
  assert.equal(run.add(Uint8Array.from([1, 2]), 48, ONE_GROUP), false);
  assert.equal(run.add(Uint8Array.from([1]), 16, ONE_GROUP), false);
  assert.equal(run.steps, 0);
});

test('probes are a few blocks apart, one at a time', () => {
  const schedule = new ProbeSchedule(1);
  assert.equal(schedule.isDue(at(300, 300, 0), options), false, 'nothing to look at yet');
  assert.equal(schedule.isDue(at(300, 300, 1), options), true);
  schedule.asked(at(300, 300, 4));
  assert.equal(schedule.isDue(at(380, 380, 9), options), false, 'one is under way');
  schedule.started(302);
  schedule.ended(10);
  assert.equal(schedule.isDue(at(340, 340, 7), options), false);
  assert.equal(schedule.isDue(at(368, 368, 8), options), true);
});

test('probes cost at most their share of the tokens that the request generated', () => {
  const schedule = new ProbeSchedule(1);
  // one token of end of thinking and 16 of answer
  assert.equal(schedule.isDue(at(1008, 169, 5), options), false);
  assert.equal(schedule.isDue(at(176, 170, 5), options), true);
  // ten tokens more, where ten tokens of the unfilled block have to be computed again
  assert.equal(schedule.isDue(at(186, 269, 5), options), false);
  assert.equal(schedule.isDue(at(186, 270, 5), options), true);
  schedule.asked(at(176, 170, 5));
  schedule.started(176);
  schedule.ended(20);
  // 17 tokens and the unfilled block's, beside the 20 that are spent
  assert.equal(schedule.isDue(at(384, 369, 20), options), false);
  assert.equal(schedule.isDue(at(384, 370, 20), options), true);
});

test('a probe that the engine had no room for is tried again a block later', () => {
  const schedule = new ProbeSchedule(1);
  schedule.asked(at(300, 300, 4));
  schedule.declined(300, 16);
  assert.equal(schedule.isDue(at(315, 315, 4), options), false);
  assert.equal(schedule.isDue(at(316, 316, 5), options), true);
});

test('a probe whose end was never reported does not end probing for good', () => {
  const schedule = new ProbeSchedule(1);
  schedule.asked(at(300, 300, 4));
  assert.equal(schedule.isDue(at(620, 620, 24), options), false);
  assert.equal(schedule.isDue(at(621, 621, 24), options), true);
});

test('probes can be spaced by the growth of the thinking, and closer while blocks go', () => {
  const spaced = { ...options, growth: 1.5, pressureEveryTokens: 32, maxExtraShare: 1, creditTokens: 0 };
  const schedule = new ProbeSchedule(1);
  schedule.asked(at(400, 400, 25, 3));
  schedule.started(400);
  schedule.ended(10);
  assert.equal(schedule.isDue(at(592, 592, 37, 3), spaced), false);
  assert.equal(schedule.isDue(at(600, 600, 37, 3), spaced), true);
  assert.equal(schedule.isDue(at(416, 416, 26, 4), spaced), false);
  assert.equal(schedule.isDue(at(432, 432, 27, 4), spaced), true);
});

test('whatever probes cost, their share is never above the bound, prefill of the unfilled block included', () => {
  const probe = fc.record({ wait: fc.nat(90), answer: fc.integer({ min: 1, max: 16 }) });
  fc.assert(
    fc.property(fc.double({ min: 0.01, max: 0.5, noNaN: true }), fc.array(probe), (maxExtraShare, probes) => {
      const schedule = new ProbeSchedule(1);
      const bound = { ...options, everyTokens: 16, maxExtraShare };
      let generated = 0;
      for (const { wait, answer } of probes) {
        generated += wait;
        const now = at(generated, generated, Math.floor(generated / 16));
        if (!schedule.isDue(now, bound)) continue;
        schedule.asked(now);
        schedule.started(generated);
        schedule.ended((generated % 16) + 1 + answer);
        assert.ok(schedule.spentTokens <= maxExtraShare * generated, `${schedule.spentTokens} of ${generated}`);
      }
    }),
  );
});

test('a probe is settled when it has read something, and nothing more for a while', () => {
  const run = new ProbeRun(1, 48, [], 16, READ);
  const step = (...codes: number[]) => {
    assert.ok(run.add(Uint8Array.from([...codes, 31]), 49, ONE_GROUP));
    return run.unchangedSteps;
  };
  assert.equal(step(31, 31, 31), 0, 'nothing was read yet');
  assert.equal(step(2, 31, 31), 0);
  assert.equal(step(2, 9, 31), 1, 'too little to count as read');
  assert.equal(step(31, 31, 31), 2);
  assert.equal(step(31, 0, 31), 0);
  assert.equal(step(2, 31, 31), 1);
});

test('what a probe reads of a young block counts in proportion to its age', () => {
  const memory = new ProbeMemory();
  memory.fold(probed(64, [], [0, 0, 0, 0]), { decay: 0.5, ageTokens: 48 });
  // the blocks are 56, 40, 24 and 8 tokens old
  assert.deepEqual(
    [...memory.masses.subarray(0, 4)].map((mass) => mass / linearMass(0)),
    [1, 40 / 48, 24 / 48, 8 / 48],
  );
  assert.equal(memory.strongest[3], linearMass(0));
});
