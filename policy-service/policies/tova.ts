import { type PolicyDefinition, withRoomFor } from './policy.ts';

/** The mass of a block is the sum over its tokens, mean over all head groups; 0 before it was measured. */
export const tova: PolicyDefinition = {
  summary: 'Keeps what is read now: the attention mass of a block at the last measured step.',
  source: 'TOVA, arXiv 2401.06104',
  evicts: true,
  hits: 'none',
  mass: true,
  merges: false,
  needsProbe: false,
  create: () => {
    let latest = new Float64Array(64);
    return {
      admit(block) {
        latest = withRoomFor(latest, block, 0);
      },
      observe({ blocks, count, mass }) {
        if (count > 0) latest = withRoomFor(latest, blocks[count - 1]!, 0);
        for (let i = 0; i < count; i += 1) latest[blocks[i]!] = mass[i]!;
      },
      score(blocks, count, _request, out) {
        for (let i = 0; i < count; i += 1) out[i] = latest[blocks[i]!]!;
      },
    };
  },
};
