import { grown } from '../grown.ts';
import type { PolicyDefinition } from './policy.ts';

export const raas: PolicyDefinition = {
  summary: 'Keeps what was read last: the last time at which a block was in the upper half by attention mass.',
  source: 'RaaS, arXiv 2502.11147',
  evicts: true,
  hits: 'top_half',
  mass: false,
  merges: false,
  needsProbe: false,
  comparison: { weight: 'equal', shift: ({ tokens }) => -tokens },
  keep: undefined,
  create: () => {
    let lastHit = new Float64Array(64);
    return {
      admit(block, tokens) {
        lastHit = grown(lastHit, block + 1);
        lastHit[block] = tokens;
      },
      observe({ tokens, blocks, evictable, hits }) {
        if (evictable > 0) lastHit = grown(lastHit, blocks[evictable - 1]! + 1);
        for (let i = 0; i < evictable; i += 1) if (hits[i] === 1) lastHit[blocks[i]!] = tokens;
      },
      score(blocks, count, _request, out) {
        for (let i = 0; i < count; i += 1) out[i] = lastHit[blocks[i]!]!;
      },
    };
  },
};
