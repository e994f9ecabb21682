import { grown } from '../grown.ts';
import type { PolicyDefinition } from './policy.ts';

/**
 * With t the time, TS that of the last hit and MRI the longest gap between two hits, the value is
 * 2 sigmoid(-(t - TS) / MRI) + 2 sigmoid(-1 / MRI): a block is not evicted before its longest gap has passed. A block
 * that was never hit again has the shortest gap there is, one token.
 */
export const lazy: PolicyDefinition = {
  summary: 'Keeps what recurs: blocks whose last hit is no longer ago than their longest gap between two hits.',
  source: 'LazyEviction, arXiv 2506.15969',
  evicts: true,
  hits: 'profile',
  mass: false,
  merges: false,
  needsProbe: false,
  comparison: { weight: 'equal' },
  keep: undefined,
  create: () => {
    let lastHit = new Float64Array(64).fill(Number.NaN);
    let longestGap = new Float64Array(64).fill(1);
    const hit = (block: number, tokens: number) => {
      lastHit = grown(lastHit, block + 1, Number.NaN);
      longestGap = grown(longestGap, block + 1, 1);
      const gap = tokens - lastHit[block]!;
      if (gap > longestGap[block]!) longestGap[block] = gap;
      lastHit[block] = tokens;
    };
    return {
      admit(block, tokens) {
        if (!(lastHit[block]! >= 0)) hit(block, tokens);
      },
      observe({ tokens, blocks, evictable, hits }) {
        for (let i = 0; i < evictable; i += 1) if (hits[i] === 1) hit(blocks[i]!, tokens);
      },
      score(blocks, count, { tokens }, out) {
        for (let i = 0; i < count; i += 1) {
          const gap = longestGap[blocks[i]!]!;
          out[i] = 2 * sigmoid(-(tokens - lastHit[blocks[i]!]!) / gap) + 2 * sigmoid(-1 / gap);
        }
      },
    };
  },
};

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
