import type { Comparison } from '../policies/policy.ts';

/**
 * The share of `values` that it takes to hold `cover` of their weight, the heaviest first, in (0, 1]; 1 when they weigh
 * nothing or there are none. Sorts `values`.
 */
export function demandOf(weight: Comparison['weight'], values: Float64Array, cover: number): number {
  const { length } = values;
  if (length === 0) return 1;
  if (weight === 'equal') return Math.ceil(cover * length) / length;
  if (weight === 'exp') {
    const highest = values.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
    for (let i = 0; i < length; i += 1) values[i] = Math.exp(values[i]! - highest);
  }
  values.sort();
  let total = 0;
  for (let i = 0; i < length; i += 1) total += values[i]!;
  if (total <= 0) return 1;
  let held = 0;
  let count = 0;
  while (count < length && held < cover * total) {
    held += values[length - 1 - count]!;
    count += 1;
  }
  return count / length;
}
