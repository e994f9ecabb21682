import { grown } from '../grown.ts';
import type { PolicyDefinition } from './policy.ts';

/** Measured steps that make the observation window. */
const WINDOW = 16;

/** A step at which a block was not in the cache counts as 0. */
export const snapkv: PolicyDefinition = {
  summary: `Keeps what was read recently: the mean attention mass of a block over the last ${WINDOW} measured steps.`,
  source: 'SnapKV, arXiv 2404.14469, with the newest tokens as observation window',
  evicts: true,
  hits: 'none',
  mass: true,
  merges: false,
  needsProbe: false,
  comparison: { weight: 'value' },
  keep: () => [{ terms: [{ statistic: 'window', pool: 7 }] }],
  create: () => {
    /** `WINDOW` masses a block, a ring by step. */
    let masses = new Float64Array(64 * WINDOW);
    let place = 0;
    return {
      admit(block) {
        masses = grown(masses, (block + 1) * WINDOW);
      },
      observe({ blocks, count, mass }) {
        if (count > 0) masses = grown(masses, (blocks[count - 1]! + 1) * WINDOW);
        for (let i = 0; i < count; i += 1) masses[blocks[i]! * WINDOW + place] = mass[i]!;
        place = (place + 1) % WINDOW;
      },
      score(blocks, count, _request, out) {
        for (let i = 0; i < count; i += 1) {
          const from = blocks[i]! * WINDOW;
          let sum = 0;
          for (let at = from; at < from + WINDOW; at += 1) sum += masses[at]!;
          out[i] = sum / WINDOW;
        }
      },
    };
  },
};
