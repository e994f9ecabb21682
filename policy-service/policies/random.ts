import type { PolicyDefinition } from './policy.ts';

export const random: PolicyDefinition = {
  summary: 'Keeps random blocks, the same ones again after a reconnect; where blocks merge, random tokens, drawn anew each time.',
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

/** FNV-1a over UTF-16 units, started from the seed. */
function hashText(text: string, seed: number): number {
  let hash = mix(0x811c9dc5 ^ seed);
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** The finaliser of MurmurHash3: every input bit changes half of the output bits. */
function mix(value: number): number {
  let hash = value | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
