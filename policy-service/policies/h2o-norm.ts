import { grown } from '../grown.ts';
import type { PolicyDefinition } from './policy.ts';

/** The mean runs over all measured steps since a block's birth, so that old blocks are not ahead for being old. */
export const h2oNorm: PolicyDefinition = {
  summary: 'Keeps heavy hitters by rate: the attention mass that a block receives on average since its birth.',
  source: 'H2O, arXiv 2306.14048, divided by age',
  evicts: true,
  hits: 'none',
  mass: true,
  merges: false,
  needsProbe: false,
  comparison: { weight: 'value' },
  keep: undefined,
  create: () => {
    let sums = new Float64Array(64);
    let ages = new Float64Array(64);
    return {
      admit(block) {
        sums = grown(sums, block + 1);
        ages = grown(ages, block + 1);
      },
      observe({ blocks, count, mass }) {
        if (count === 0) return;
        sums = grown(sums, blocks[count - 1]! + 1);
        ages = grown(ages, blocks[count - 1]! + 1);
        for (let i = 0; i < count; i += 1) {
          sums[blocks[i]!]! += mass[i]!;
          ages[blocks[i]!]! += 1;
        }
      },
      score(blocks, count, _request, out) {
        for (let i = 0; i < count; i += 1) out[i] = sums[blocks[i]!]! / Math.max(1, ages[blocks[i]!]!);
      },
    };
  },
};
