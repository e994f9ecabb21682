import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import type { Policy, RequestFacts } from '../../policy-service/policies/policy.ts';
import { POLICIES, POLICY_NAMES, type PolicyName } from '../../policy-service/policies/registry.ts';
import { toProfile } from '../../policy-service/request/profiles.ts';
import { type RequestStart, RequestState } from '../../policy-service/request/request-state.ts';
import { takeMasses } from '../../policy-service/request/take-masses.ts';
import { GROUPS, masses, testConfig } from './scripted-engine.ts';

const parameters = {
  halfLifeTokens: 70,
  seed: 3,
  answerWeight: 0.5,
  segments: true,
  recurrence: true,
  answerShare: 0.35,
  attentionShare: 0.7,
  rkvLambda: 0.1,
};
const noProbe = { count: 0, seen: 0, masses: new Float64Array(0) };

function facts(changes: Partial<RequestFacts> = {}): RequestFacts {
  return { identity: 'request-1 0', tokens: 100, probe: noProbe, segments: undefined, ...changes };
}

function scores(policy: Policy, blocks: number[], request = facts()): number[] {
  const out = new Float64Array(blocks.length);
  policy.score(Int32Array.from(blocks), blocks.length, request, out);
  return [...out];
}

function observe(policy: Policy, tokens: number, blocks: number[], hits: number[], mass: number[] = []): void {
  policy.observe?.({
    tokens,
    blocks: Int32Array.from(blocks),
    count: blocks.length,
    evictable: hits.length,
    hits: Uint8Array.from(hits),
    mass: Float64Array.from(mass),
  });
}

function request(policy: PolicyName, start: Partial<RequestStart> = {}): RequestState {
  const { profiles } = testConfig({}, { one: { policy, controller: { type: 'fixed', budget_tokens: 64 } } });
  const profile = toProfile('one', profiles['one']!);
  return new RequestState(
    {
      handle: 1,
      crystalkvId: 'request-1',
      choiceIndex: 0,
      promptTokens: 20,
      epoch: 0,
      cold: false,
      blockSize: 16,
      sinkTokens: 4,
      recentTokens: 32,
      headGroups: GROUPS,
      probeSuffixTokens: 1,
      statistics: undefined,
      marksMerges: false,
      ...start,
    },
    { profile, controller: profile.controller, mode: 'enforce', canary: false },
    undefined,
  );
}

/** What the older of two requests is ahead of the other, in blocks of its prompt. */
const OLDER_BLOCKS = 10;

function comparableValues({ ranking, table }: RequestState): number[] {
  const values = new Float64Array(table.liveCount);
  return [...values.subarray(0, ranking.comparableValues(values, 0))];
}

const measuredStep = fc.record({ grow: fc.integer({ min: 1, max: 20 }), read: fc.array(fc.nat(200)), ask: fc.nat(5) });

for (const name of POLICY_NAMES) {
  suite(`every policy: ${name}`, () => {
    const play = (state: RequestState, steps: { grow: number; read: number[]; ask: number }[]) => {
      const taken: number[][] = [];
      for (const { grow, read, ask } of steps) {
        state.advance(state.tokens + grow, 2, []);
        const columns = state.table.resident;
        const codes = masses(columns, [...new Set(read.map((one) => one % columns))]);
        assert.equal(takeMasses(state, codes).kind, 'learned');
        state.admit();
        const blocks = state.ranking.leastValuable(ask);
        assert.deepEqual(state.ranking.leastValuable(ask), blocks, 'asking changes nothing');
        assert.ok(blocks.length <= ask, 'never more than was asked for');
        for (const block of blocks) {
          assert.ok(block >= 2 && (block + 1) * 16 <= state.tokens - 32, `block ${block} is protected`);
          assert.ok(!state.table.isHole(block), `block ${block} is a hole`);
        }
        state.table.markHoles(blocks);
        taken.push(blocks);
      }
      return taken;
    };

    test('keeps to the protections, to holes and to the number asked for, and is deterministic', () => {
      fc.assert(
        fc.property(fc.array(measuredStep, { maxLength: 30 }), (steps) => {
          assert.deepEqual(play(request(name), steps), play(request(name), steps));
        }),
        { numRuns: 60 },
      );
    });

    test('gives every block that may leave a finite value', () => {
      fc.assert(
        fc.property(fc.array(measuredStep, { minLength: 1, maxLength: 30 }), (steps) => {
          const state = request(name);
          play(state, steps);
          const { first, last } = state.table;
          const values = state.ranking.keepValues(first, last);
          assert.equal(values.length, last - first);
          assert.ok(values.every(Number.isFinite), `${values}`);
        }),
        { numRuns: 60 },
      );
    });

    // What is worth something by chance does not compare.
    const comparable = name === 'random' ? undefined : test;
    comparable?.('gives the same values to the blocks of an older request that was read alike', () => {
      fc.assert(
        fc.property(fc.array(measuredStep, { minLength: 1, maxLength: 30 }), (steps) => {
          const young = request(name);
          const old = request(name, { promptTokens: 20 + OLDER_BLOCKS * 16 });
          old.advance(OLDER_BLOCKS * 16, 2, []);
          for (const { grow, read } of steps) {
            for (const state of [young, old]) state.advance(state.tokens + grow, 2, []);
            const columns = young.table.resident;
            const columnsRead = [...new Set(read.map((one) => one % columns))];
            takeMasses(young, masses(columns, columnsRead));
            const moved = columnsRead.map((one) => one + OLDER_BLOCKS);
            takeMasses(old, masses(columns + OLDER_BLOCKS, moved));
            for (const state of [young, old]) state.admit();
          }
          const [values, others] = [young, old].map(comparableValues) as [number[], number[]];
          assert.equal(values.length, others.length);
          for (const [i, value] of values.entries()) assert.ok(Math.abs(value - others[i]!) < 1e-9, `${i}: ${value}`);
        }),
        { numRuns: 60 },
      );
    });

    test('explains itself', () => {
      const { summary, source } = POLICIES[name];
      assert.ok(summary.length > 20 && source.length > 5);
    });
  });
}

test('crf: demand is read from what the logarithms stand for', () => {
  const state = request('crf');
  for (let tokens = 80; tokens <= 400; tokens += 16) {
    state.advance(tokens, 2, []);
    takeMasses(state, masses(state.table.resident, [2]));
    state.admit();
  }
  const blocks = state.table.last - state.table.first;
  assert.ok(blocks > 10);
  // Block 2 was read at every step, the others at their birth only.
  assert.equal(state.ranking.demand(0.3), 1 / blocks);
});

test('window keeps the newest blocks', () => {
  assert.deepEqual(scores(POLICIES.window.create(parameters), [4, 7, 9]), [4, 7, 9]);
});

test('random gives the same values after a reconnect, others to other requests and seeds', () => {
  const blocks = [3, 4, 5, 6];
  const values = scores(POLICIES.random.create(parameters), blocks);
  assert.deepEqual(scores(POLICIES.random.create(parameters), blocks), values);
  assert.notDeepEqual(scores(POLICIES.random.create(parameters), blocks, facts({ identity: 'request-2 0' })), values);
  assert.notDeepEqual(scores(POLICIES.random.create({ ...parameters, seed: 4 }), blocks), values);
  assert.equal(new Set(values).size, 4);
});

test('h2o sums the mass since birth, the time in the protected window included', () => {
  const policy = POLICIES.h2o.create(parameters);
  observe(policy, 10, [2, 3], [0], [0.5, 0.25]);
  observe(policy, 11, [2, 3], [0, 0], [0.125, 0.5]);
  assert.deepEqual(scores(policy, [2, 3]), [0.625, 0.75]);
});

test('raas keeps the time of the last hit, birth included', () => {
  const policy = POLICIES.raas.create(parameters);
  policy.admit?.(2, 100);
  policy.admit?.(3, 110);
  observe(policy, 120, [2, 3], [1, 0]);
  assert.deepEqual(scores(policy, [2, 3]), [120, 110]);
});

test('crf adds up hits that halve every half-life', () => {
  const policy = POLICIES.crf.create({ ...parameters, halfLifeTokens: 10 });
  policy.admit?.(2, 100);
  policy.admit?.(3, 110);
  // C = 1 at 100 and one more at 120 with two half-lives between: 1.25 at 120. Block 3: 0.5 at 120.
  observe(policy, 120, [2, 3], [1, 0]);
  const rate = Math.LN2 / 10;
  const [two, three] = scores(policy, [2, 3]);
  assert.ok(Math.abs(two! - (Math.log(1.25) + rate * 120)) < 1e-12);
  assert.ok(Math.abs(three! - (Math.log(1) + rate * 110)) < 1e-12);
});

test('crf with the decay of the paper still tells blocks apart after thousands of tokens', () => {
  const policy = POLICIES.crf.create({ ...parameters, halfLifeTokens: 1.36 });
  policy.admit?.(2, 10);
  policy.admit?.(3, 11);
  observe(policy, 50_000, [2, 3, 4], [0, 0, 1]);
  const [two, three, four] = scores(policy, [2, 3, 4]);
  assert.ok(two! < three! && three! < four! && Number.isFinite(four!));
});

test('crf counts a hit at birth once', () => {
  const policy = POLICIES.crf.create({ ...parameters, halfLifeTokens: 10 });
  observe(policy, 100, [2], [1]);
  policy.admit?.(2, 100);
  policy.admit?.(3, 100);
  const [two, three] = scores(policy, [2, 3]);
  assert.equal(two, three);
});

test('h2o-norm divides by the steps since birth', () => {
  const policy = POLICIES['h2o-norm'].create(parameters);
  observe(policy, 10, [2], [], [0.5]);
  observe(policy, 11, [2, 3], [], [0.125, 0.25]);
  observe(policy, 12, [2, 3], [], [0.125, 0.5]);
  assert.deepEqual(scores(policy, [2, 3]), [0.25, 0.375]);
});

test('tova knows the last measured step only', () => {
  const policy = POLICIES.tova.create(parameters);
  observe(policy, 10, [2, 3], [], [0.5, 0.25]);
  observe(policy, 11, [2, 3], [], [0.125, 0.5]);
  assert.deepEqual(scores(policy, [2, 3]), [0.125, 0.5]);
});

test('snapkv forgets what is older than sixteen measured steps', () => {
  const policy = POLICIES.snapkv.create(parameters);
  observe(policy, 10, [2, 3], [], [1, 0.5]);
  for (let step = 11; step < 26; step += 1) observe(policy, step, [2, 3], [], [0, 0.5]);
  assert.deepEqual(scores(policy, [2, 3]), [1 / 16, 0.5]);
  observe(policy, 26, [2, 3], [], [0, 0.5]);
  assert.deepEqual(scores(policy, [2, 3]), [0, 0.5]);
});

test('lazy does not give a block up before its longest gap has passed', () => {
  const policy = POLICIES.lazy.create(parameters);
  for (const block of [2, 3, 4]) policy.admit?.(block, 100);
  observe(policy, 180, [2, 3, 4], [1, 0, 0]);
  observe(policy, 190, [2, 3, 4], [0, 1, 0]);
  const [two, three, four] = scores(policy, [2, 3, 4], facts({ tokens: 220 }));
  const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
  assert.equal(two, 2 * sigmoid(-40 / 80) + 2 * sigmoid(-1 / 80));
  assert.equal(three, 2 * sigmoid(-30 / 90) + 2 * sigmoid(-1 / 90));
  assert.ok(four! < two!, 'a block that was never read again goes first');
});

const probe = { count: 1, seen: 5, masses: Float64Array.from([0, 0, 0, 0.25, 0.5]) };

test('crystal adds what probed answers read to what the reasoning reads', () => {
  const policy = POLICIES.crystal.create(parameters);
  observe(policy, 120, [2, 3, 4, 5], [], [0.25, 0.125, 0, 0.0625]);
  assert.deepEqual(scores(policy, [2, 3, 4, 5], facts({ probe })), [0.25, 0.25, 0.25, 0.0625]);
});

test('crystal without recurrence knows the answer only', () => {
  const policy = POLICIES.crystal.create({ ...parameters, recurrence: false });
  observe(policy, 120, [2, 3, 4, 5], [], [0.25, 0.125, 0, 0.0625]);
  assert.deepEqual(scores(policy, [2, 3, 4, 5], facts({ probe })), [0, 0.125, 0.25, 0]);
});

test('crystal spares the best block of each segment, of equal ones the first', () => {
  const segments = Int32Array.from([0, 0, 1, 1, 1, 2, 2]);
  const measured = (changes: object) => {
    const policy = POLICIES.crystal.create({ ...parameters, ...changes });
    observe(policy, 120, [2, 3, 4, 5, 6], [], [0.25, 0.5, 0.25, 0.5, 0.5]);
    return scores(policy, [2, 3, 4, 5, 6], facts({ segments }));
  };
  assert.deepEqual(measured({}), [0.1875, 0.5, 0.1875, 0.5, 0.375]);
  assert.deepEqual(measured({ segments: false }), [0.25, 0.5, 0.25, 0.5, 0.5]);
});

test('the middle of a block tells its segment; segments that no block has the middle of are skipped', () => {
  const state = request('crystal');
  state.advance(32, 2, []);
  state.advance(120, 2, [44, 46, 80, 100]);
  state.admit();
  // Blocks 2 to 4 may leave; their middles are 40, 56 and 72.
  assert.deepEqual([...state.segments!.subarray(2, 5)], [0, 2, 2]);
});
