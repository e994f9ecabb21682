import { hashText, mix } from './hash.ts';
import type { PolicyDefinition } from './policy.ts';

export const random: PolicyDefinition = {
  summary:
    'Keeps random blocks, the same ones again after a reconnect; where blocks merge, random tokens, drawn anew each time.',
  source: 'Random Attention, arXiv 2609.03430',
  evicts: true,
  hits: 'none',
  mass: false,
  merges: false,
  needsProbe: false,
  comparison: { weight: 'equal' },
  keep: () => [{ terms: [{ statistic: 'random' }] }],
  create: ({ seed }) => {
    let identity = '';
    let hashed = hashText('', seed);
    return {
      score(blocks, count, request, out) {
        if (request.identity !== identity) {
          identity = request.identity;
          hashed = hashText(identity, seed);
        }
        for (let i = 0; i < count; i += 1) out[i] = mix(hashed ^ Math.imul(blocks[i]! + 1, 0x9e3779b1)) / 2 ** 32;
      },
    };
  },
};
