import type { PolicyDefinition } from './policy.ts';

export const full: PolicyDefinition = {
  summary: 'Keeps everything: the full cache, as baseline.',
  source: 'stock engine',
  evicts: false,
  hits: 'none',
  mass: false,
  merges: false,
  needsProbe: false,
  comparison: { weight: 'equal' },
  keep: undefined,
  create: () => ({
    score(_blocks, count, _request, out) {
      out.fill(0, 0, count);
    },
  }),
};
