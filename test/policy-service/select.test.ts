import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { takeLowest } from '../../policy-service/request/select.ts';

test('exactly the lowest n are taken, of equal ones the lower index, ascending', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.nat(1000), { maxLength: 60 }),
      fc.array(fc.integer({ min: -3, max: 3 }), { minLength: 60, maxLength: 60 }),
      fc.nat(60),
      (indices, values, n) => {
        const ascending = indices.toSorted((a, b) => a - b);
        const blocks = Int32Array.from(ascending);
        const keep = Float64Array.from(values.slice(0, ascending.length));
        const expected = ascending
          .map((block, i) => ({ block, value: values[i]! }))
          .sort((a, b) => a.value - b.value || a.block - b.block)
          .slice(0, n)
          .map(({ block }) => block)
          .sort((a, b) => a - b);
        const taken = takeLowest(blocks, keep, ascending.length, n);
        assert.equal(taken, n <= ascending.length ? n : 0);
        if (taken > 0) assert.deepEqual([...blocks.subarray(0, taken)], expected);
        assert.deepEqual(blocks.toSorted(), Int32Array.from(ascending));
      },
    ),
    { numRuns: 500 },
  );
});

test('nothing is taken, and nothing moved, when there are fewer candidates than asked for', () => {
  const blocks = Int32Array.from([4, 5]);
  assert.equal(takeLowest(blocks, Float64Array.from([2, 1]), 2, 3), 0);
  assert.deepEqual([...blocks], [4, 5]);
});
