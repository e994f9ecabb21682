import type { PolicyDefinition } from './policy.ts';
import { window } from './window.ts';

/**
 * Tokens that attend little and repeat others go: lambda * attention - (1 - lambda) * softmax(mean cosine of keys). Its
 * authors use lambda .1; .5 was better in later comparisons. Unlike theirs, the newest of several alike tokens has no
 * exemption.
 */
export const rkv: PolicyDefinition = {
  ...window,
  summary:
    'Keeps tokens that are read and that other keys do not repeat (`rkv_lambda` weighs them); the newest blocks where nothing can be merged.',
  source: 'R-KV, arXiv 2505.24133',
  merges: true,
  keep: ({ rkvLambda }) => [
    {
      terms: [
        { statistic: 'window', weight: rkvLambda, scale: 'share', pool: 7 },
        { statistic: 'key_similarity', weight: rkvLambda - 1, scale: 'softmax' },
      ],
    },
  ],
};
