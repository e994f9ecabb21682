import { grown } from '../grown.ts';
import type { PolicyDefinition } from './policy.ts';

/** The mass of a block is the sum over its tokens, mean over all head groups; 0 before it was measured. */
export const tova: PolicyDefinition = {
  summary: 'Keeps what is read now: the attention mass of a block at the last measured step.',
  source: 'TOVA, arXiv 2401.06104',
  evicts: true,
  hits: 'none',
  mass: true,
  merges: false,
  needsProbe: false,
  comparison: { weight: 'value' },
  keep: () => [{ terms: [{ statistic: 'last' }] }],
  create: () => {
    let latest = new Float64Array(64);
    return {
      admit(block) {
        latest = grown(latest, block + 1);
      },
      observe({ blocks, count, mass }) {
        if (count > 0) latest = grown(latest, blocks[count - 1]! + 1);
        for (let i = 0; i < count; i += 1) latest[blocks[i]!] = mass[i]!;
      },
      score(blocks, count, _request, out) {
        for (let i = 0; i < count; i += 1) out[i] = latest[blocks[i]!]!;
      },
    };
  },
};
