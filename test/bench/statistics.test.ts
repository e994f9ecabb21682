import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pairedLow } from '../../bench/statistics.ts';

/** Lists of cases: both right, only the first, only the second, none. */
function cases(both: number, first: number, second: number, none: number): [boolean[], boolean[]] {
  const repeat = (count: number, value: boolean) => Array<boolean>(count).fill(value);
  return [
    [...repeat(both + first, true), ...repeat(second + none, false)],
    [...repeat(both, true), ...repeat(first, false), ...repeat(second, true), ...repeat(none, false)],
  ];
}

test('a paired difference has the interval of its source', () => {
  // Newcombe's table III: 36, 12, 2 and 0 pairs give 0.2000 from 0.0569
  assert.equal(pairedLow(...cases(36, 12, 2, 0)).toFixed(4), '0.0569');
});

test('no difference is no proof of equality', () => {
  assert.equal(pairedLow(...cases(40, 0, 0, 0)).toFixed(3), '-0.088');
  assert.ok(pairedLow(...cases(400, 0, 0, 0)) > -0.01);
});

test('pairs must be pairs', () => {
  assert.throws(() => pairedLow([true], []), /got 1 and 0 cases/);
});
