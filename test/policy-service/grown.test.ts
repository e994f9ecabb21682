import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grown } from '../../policy-service/grown.ts';

test('an array that is long enough stays the same one', () => {
  const array = new Int32Array(8);
  assert.equal(grown(array, 8), array);
});

test('a longer array keeps the numbers, fills the rest, and has room for as many more', () => {
  const array = Float64Array.from({ length: 100 }, (_, i) => i);
  const longer = grown(array, 101, Number.NaN);
  assert.ok(longer instanceof Float64Array);
  assert.ok(longer.length >= 202);
  assert.deepEqual(longer.subarray(0, 100), array);
  assert.ok(longer.subarray(100).every(Number.isNaN));
  assert.ok(
    grown(array, 101)
      .subarray(100)
      .every((value) => value === 0),
  );
});
