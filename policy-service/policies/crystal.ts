import { crf } from './crf.ts';
import type { PolicyDefinition } from './policy.ts';

/** What the second criterion may add at most: less than the smallest mass that a probe can report (about 1e-8). */
const TIE_BREAK = 1e-9;

/**
 * Answer first: a block is worth what probed answers read of it. A block that no probe has seen is worth what an old
 * block was worth on average at the last probe: it stays before what a probe saw and did not read, and goes before what
 * a probe did read. Equal blocks, and every block before the first probe, are ordered by `crf`.
 */
export const crystal: PolicyDefinition = {
  summary: 'Keeps what the answer will read: mass of answer probes (decaying maximum), then recency and frequency.',
  source: 'this project, after Crystal-KV, arXiv 2601.16986',
  evicts: true,
  hits: 'nucleus',
  mass: false,
  needsProbe: true,
  create: (parameters) => {
    const history = crf.create(parameters);
    return {
      admit: (block, tokens) => history.admit?.(block, tokens),
      observe: (measurement) => history.observe?.(measurement),
      score(blocks, count, request, out) {
        history.score(blocks, count, request, out);
        const { probe } = request;
        if (probe.count === 0) return;
        let low = Number.POSITIVE_INFINITY;
        let high = Number.NEGATIVE_INFINITY;
        for (let i = 0; i < count; i += 1) {
          low = Math.min(low, out[i]!);
          high = Math.max(high, out[i]!);
        }
        const scale = high > low ? TIE_BREAK / (high - low) : 0;
        for (let i = 0; i < count; i += 1) {
          const block = blocks[i]!;
          const read = block < probe.seen ? probe.masses[block]! : probe.expected;
          out[i] = read + (out[i]! - low) * scale;
        }
      },
    };
  },
};
