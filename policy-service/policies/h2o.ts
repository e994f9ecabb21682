import { grown } from '../grown.ts';
import type { PolicyDefinition } from './policy.ts';

/** The sum runs from a block's birth, so also over its time in the protected window. */
export const h2o: PolicyDefinition = {
  summary: 'Keeps heavy hitters: the attention mass that a block has received since its birth.',
  source: 'H2O, arXiv 2306.14048',
  evicts: true,
  hits: 'none',
  mass: true,
  merges: false,
  needsProbe: false,
  comparison: { weight: 'value' },
  keep: () => [{ terms: [{ statistic: 'total' }] }],
  create: () => {
    let sums = new Float64Array(64);
    return {
      admit(block) {
        sums = grown(sums, block + 1);
      },
      observe({ blocks, count, mass }) {
        if (count > 0) sums = grown(sums, blocks[count - 1]! + 1);
        for (let i = 0; i < count; i += 1) sums[blocks[i]!]! += mass[i]!;
      },
      score(blocks, count, _request, out) {
        for (let i = 0; i < count; i += 1) out[i] = sums[blocks[i]!]!;
      },
    };
  },
};
