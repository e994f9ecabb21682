import type { PolicyDefinition } from './policy.ts';

export const window: PolicyDefinition = {
  summary: 'Keeps the newest blocks: the value of a block is its index.',
  source: 'StreamingLLM, arXiv 2309.17453, with prompt protection',
  evicts: true,
  hits: 'none',
  mass: false,
  merges: false,
  needsProbe: false,
  comparison: { weight: 'equal', shift: ({ tokens, blockSize }) => -tokens / blockSize },
  keep: () => [{ terms: [{ statistic: 'position' }] }],
  create: () => ({
    score(blocks, count, _request, out) {
      for (let i = 0; i < count; i += 1) out[i] = blocks[i]!;
    },
  }),
};
