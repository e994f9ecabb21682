import type { PolicyName } from '../policies/registry.ts';

/** What values are shifted by. */
export interface Clock {
  tokens: number;
  blockSize: number;
  halfLifeTokens: number;
}

interface Comparison {
  /** Added to a request's values before they are compared with those of another request. */
  shift?(clock: Clock): number;
  /** What a value weighs when a request's demand is read from its blocks: itself, its exponential, or all the same. */
  weight: 'value' | 'exp' | 'equal';
}

/**
 * Values compare within a request; most do across requests as well. Shares of attention are shares of what a request
 * reads, and times are made ages. A policy that is not named is compared as it is, and its blocks weigh the same.
 */
const COMPARISONS: Partial<Record<PolicyName, Comparison>> = {
  crystal: { weight: 'value' },
  h2o: { weight: 'value' },
  'h2o-norm': { weight: 'value' },
  tova: { weight: 'value' },
  snapkv: { weight: 'value' },
  crf: { weight: 'exp', shift: ({ tokens, halfLifeTokens }) => (-Math.LN2 / halfLifeTokens) * tokens },
  raas: { weight: 'equal', shift: ({ tokens }) => -tokens },
  window: { weight: 'equal', shift: ({ tokens, blockSize }) => -tokens / blockSize },
};

const AS_IT_IS: Comparison = { weight: 'equal' };

function comparisonOf(policy: string): Comparison {
  return (COMPARISONS as Partial<Record<string, Comparison>>)[policy] ?? AS_IT_IS;
}

/** What to add to a request's values so that they compare with those of others under the same policy. */
export function comparableShift(policy: string, clock: Clock): number {
  return comparisonOf(policy).shift?.(clock) ?? 0;
}

/**
 * The share of `values` that it takes to hold `cover` of their weight, the heaviest first, in (0, 1]; 1 when they weigh
 * nothing or there are none. Sorts `values`.
 */
export function demandOf(policy: string, values: Float64Array, cover: number): number {
  const { length } = values;
  if (length === 0) return 1;
  const { weight } = comparisonOf(policy);
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
