import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { findHits, HIT_RULES, topHalfHits } from '../../policy-service/measure/hits.ts';
import { linearMass, meanMass, raisePeaks } from '../../policy-service/measure/masses.ts';

const layout = fc
  .record({ groups: fc.integer({ min: 1, max: 4 }), columns: fc.integer({ min: 1, max: 40 }) })
  .chain(({ groups, columns }) =>
    fc.record({
      groups: fc.constant(groups),
      columns: fc.constant(columns),
      bounds: fc.tuple(fc.nat(columns), fc.nat(columns)),
      codes: fc.array(fc.nat(31), { minLength: groups * columns, maxLength: groups * columns }),
      share: fc.double({ min: 0.05, max: 1, noNaN: true }),
    }),
  );

const nucleus = (share: number) => ({ rule: 'nucleus', share }) as const;

/** The definition, with sorted floats; columns of equal mass enter together. */
function naiveHits(codes: number[], groups: number, columns: number, from: number, to: number, share: number) {
  const hits = new Array<number>(to - from).fill(0);
  for (let group = 0; group < groups; group += 1) {
    const row = codes.slice(group * columns + from, group * columns + to);
    const total = row.reduce((sum, code) => sum + linearMass(code), 0);
    if (total < 0.02) continue;
    let covered = 0;
    for (const code of [...new Set(row)].sort((a, b) => a - b)) {
      if (code === 31 || covered >= share * total - 1e-12) break;
      covered += linearMass(code) * row.filter((other) => other === code).length;
      row.forEach((other, i) => {
        if (other === code) hits[i] = 1;
      });
    }
  }
  return hits;
}

test('the nucleus of four columns at a time is that of the definition', () => {
  fc.assert(
    fc.property(layout, ({ groups, columns, bounds, codes, share }) => {
      const [from, to] = [Math.min(...bounds), Math.max(...bounds)];
      const hits = new Uint8Array(64).fill(9);
      // A view that begins in the middle of a buffer, as the bytes of a message do.
      const bytes = Uint8Array.from([1, 2, 3, ...codes]).subarray(3);
      assert.equal(findHits(bytes, groups, columns, from, to, nucleus(share), hits), true);
      const naive = naiveHits(codes, groups, columns, from, to, share);
      assert.deepEqual([...hits.subarray(0, to - from)], naive);
    }),
    { numRuns: 500 },
  );
});

test('the nucleus is taken from the evictable columns alone', () => {
  // Column 0 holds nearly everything; of the rest, columns 2 and 3 hold more than nine tenths.
  const codes = Uint8Array.from([0, 20, 8, 8, 20]);
  const hits = new Uint8Array(4);
  findHits(codes, 1, 5, 1, 5, nucleus(0.9), hits);
  assert.deepEqual([...hits], [0, 1, 1, 0]);
});

test('a head group with under two hundredths of its mass on evictable columns says nothing', () => {
  const hits = new Uint8Array(2);
  findHits(Uint8Array.from([0, 13, 13]), 1, 3, 1, 3, nucleus(0.9), hits);
  assert.deepEqual([...hits], [0, 0]);
  findHits(Uint8Array.from([0, 12, 13]), 1, 3, 1, 3, nucleus(0.5), hits);
  assert.deepEqual([...hits], [1, 0]);
});

test('a block is hit when one of the head groups reads it', () => {
  const hits = new Uint8Array(3);
  findHits(Uint8Array.from([0, 31, 31, 31, 31, 0]), 2, 3, 0, 3, nucleus(0.9), hits);
  assert.deepEqual([...hits], [1, 0, 1]);
});

test('a share of the mass is reached by one group, to the resolution of a log code', () => {
  fc.assert(
    fc.property(layout, ({ groups, columns, bounds, codes, share }) => {
      const [from, to] = [Math.min(...bounds), Math.max(...bounds)];
      const hits = new Uint8Array(64).fill(9);
      const bytes = Uint8Array.from([1, 2, 3, ...codes]).subarray(3);
      assert.equal(findHits(bytes, groups, columns, from, to, { rule: 'mass', share }, hits), true);
      const last = Math.floor(-2 * Math.log2(share));
      const read = (column: number) => codes.some((code, at) => at % columns === column && code <= last);
      const expected = Array.from({ length: to - from }, (_, i) => Number(read(from + i)));
      assert.deepEqual([...hits.subarray(0, to - from)], expected);
    }),
    { numRuns: 500 },
  );
});

test('a tenth of the attention is a hit, a twentieth is not, however little the others hold', () => {
  const code = (mass: number) => Math.floor(-2 * Math.log2(mass));
  const hits = new Uint8Array(3);
  findHits(Uint8Array.from([code(0.1), code(0.05), code(0.0001)]), 1, 3, 0, 3, { rule: 'mass', share: 0.1 }, hits);
  assert.deepEqual([...hits], [1, 0, 0]);
});

test('bytes that are no log codes are refused, whatever the rule', () => {
  for (let place = 0; place < 5; place += 1) {
    const codes = Uint8Array.from([3, 3, 3, 3, 3]);
    codes[place] = 32;
    for (const rule of HIT_RULES) {
      assert.equal(findHits(codes, 1, 5, 0, 5, { rule, share: 0.9 }, new Uint8Array(5)), false);
    }
  }
});

test('the mean mass is that of all head groups, and code 31 weighs nothing', () => {
  const mean = new Float64Array(2);
  meanMass(Uint8Array.from([9, 0, 31, 9, 2, 31]), 2, 3, 1, 3, mean);
  assert.deepEqual([...mean], [(2 ** -0.25 + 2 ** -1.25) / 2, 0]);
});

test('a peak is the most of all head groups and never sinks', () => {
  const peak = Float64Array.from([0, 0.9]);
  raisePeaks(Uint8Array.from([9, 2, 31, 9, 0, 4]), 2, 3, 1, 3, peak);
  assert.deepEqual([...peak], [linearMass(0), 0.9]);
});

test('the top half is the better half, rounded up, and of equal blocks the newest', () => {
  const hits = new Uint8Array(5);
  topHalfHits(Float64Array.from([0.5, 0.1, 0.2, 0.1, 0.1]), 5, hits);
  assert.deepEqual([...hits], [1, 0, 1, 0, 1]);
  topHalfHits(Float64Array.from([0, 0, 0, 0]), 4, hits);
  assert.deepEqual([...hits.subarray(0, 4)], [0, 0, 1, 1]);
});
