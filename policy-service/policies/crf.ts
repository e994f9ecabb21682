import { grown } from '../grown.ts';
import type { PolicyDefinition } from './policy.ts';

/**
 * Combined recency and frequency. With rate = ln 2 / half-life, a hit makes C <- C * exp(-rate * dt) + 1, and the value
 * is log C + rate * t_last. Written out, that is the logarithm of the sum of exp(rate * t) over the hits: a miss
 * changes nothing, and no power of the decay can vanish. A block counts as hit when it leaves the protected window: its
 * life in the ranking begins there.
 */
export const crf: PolicyDefinition = {
  summary: 'Keeps what was read often and recently: hits that lose half of their weight every half-life.',
  source: 'Crystal-KV, arXiv 2601.16986, half-life in tokens',
  evicts: true,
  hits: 'profile',
  mass: false,
  merges: false,
  needsProbe: false,
  comparison: {
    weight: 'exp',
    shift: ({ tokens }, { halfLifeTokens }) => (-Math.LN2 / halfLifeTokens) * tokens,
  },
  keep: undefined,
  create: ({ halfLifeTokens }) => {
    const rate = Math.LN2 / halfLifeTokens;
    let keys = new Float64Array(64).fill(Number.NEGATIVE_INFINITY);
    return {
      admit(block, tokens) {
        keys = grown(keys, block + 1, Number.NEGATIVE_INFINITY);
        if (keys[block] === Number.NEGATIVE_INFINITY) keys[block] = rate * tokens;
      },
      observe({ tokens, blocks, evictable, hits }) {
        if (evictable > 0) keys = grown(keys, blocks[evictable - 1]! + 1, Number.NEGATIVE_INFINITY);
        const now = rate * tokens;
        for (let i = 0; i < evictable; i += 1) {
          if (hits[i] === 1) keys[blocks[i]!] = logSum(keys[blocks[i]!]!, now);
        }
      },
      score(blocks, count, _request, out) {
        for (let i = 0; i < count; i += 1) out[i] = keys[blocks[i]!]!;
      },
    };
  },
};

/** log(exp(a) + exp(b)) without overflow; `a` may be minus infinity. */
function logSum(a: number, b: number): number {
  const high = Math.max(a, b);
  const low = Math.min(a, b);
  return high + Math.log1p(Math.exp(low - high));
}
