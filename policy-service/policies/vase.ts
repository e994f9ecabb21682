import type { PolicyDefinition } from './policy.ts';
import { window } from './window.ts';

/** A quarter of the room goes to the widest values, the rest is drawn by attention. */
export const vase: PolicyDefinition = {
  ...window,
  summary:
    'Keeps tokens with the widest values, and draws the others by attention; the newest blocks where nothing can be merged.',
  source: 'VaSE, arXiv 2606.03928',
  merges: true,
  keep: () => [
    { share: 0.25, terms: [{ statistic: 'value_range' }] },
    { terms: [{ statistic: 'window', scale: 'share' }], sampled: true },
  ],
};
