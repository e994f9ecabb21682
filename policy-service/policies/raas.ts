import { type PolicyDefinition, withRoomFor } from './policy.ts';

export const raas: PolicyDefinition = {
  summary: 'Keeps what was read last: the time at which a block was last in the better half by mass.',
  source: 'RaaS, arXiv 2502.11147',
  evicts: true,
  hits: 'top_half',
  mass: false,
  merges: false,
  needsProbe: false,
  create: () => {
    let lastHit = new Float64Array(64);
    return {
      admit(block, tokens) {
        lastHit = withRoomFor(lastHit, block, 0);
        lastHit[block] = tokens;
      },
      observe({ tokens, blocks, evictable, hits }) {
        if (evictable > 0) lastHit = withRoomFor(lastHit, blocks[evictable - 1]!, 0);
        for (let i = 0; i < evictable; i += 1) if (hits[i] === 1) lastHit[blocks[i]!] = tokens;
      },
      score(blocks, count, _request, out) {
        for (let i = 0; i < count; i += 1) out[i] = lastHit[blocks[i]!]!;
      },
    };
  },
};
