import type { KeepStages } from './keep.ts';
import type { PolicyDefinition } from './policy.ts';
import { window } from './window.ts';

/** The rule: tokens whose keys are least like the mean key stay. */
export const FARTHEST_KEYS: KeepStages = [{ terms: [{ statistic: 'key_difference' }] }];

/** Needs no attention: keys far from the mean of all keys are those that attract it. */
export const keydiff: PolicyDefinition = {
  ...window,
  summary: 'Keeps tokens whose keys are least like the mean key; the newest blocks where nothing can be merged.',
  source: 'KeyDiff, arXiv 2504.15364',
  merges: true,
  keep: () => FARTHEST_KEYS,
};
