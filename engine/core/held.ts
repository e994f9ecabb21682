import type { HeldTokens } from '../../proto/gen/crystalkv/v1/policy.ts';
import { type BlockPool, NULL_BLOCK } from './block-pool.ts';
import type { Sequence } from './sequence.ts';

/** Bounds of the protocol: tokens, and bytes of the bits of all head groups. */
const MAX_TOKENS = 16_384;
const MAX_GROUP_BYTES = 12 << 10;
const ALL = 255;

/** What is asked of the model; positions are those of the tokens in the slots of a block of the pool. */
export interface HeldSource {
  layers: number;
  kvHeads: number;
  positions(layer: number, block: number, head: number): ArrayLike<number>;
}

/** How much of each output token a sequence still has in memory. undefined: it has more tokens than can be told. */
export function heldTokens(sequence: Sequence, pool: BlockPool, source: HeldSource): HeldTokens | undefined {
  const first = pool.blocksFor(sequence.promptTokens);
  const from = first * pool.blockSize;
  const full = pool.filledBy(sequence.computed);
  const tokens = Math.max(0, full * pool.blockSize - from);
  if (tokens > MAX_TOKENS) return undefined;
  const resident = sequence.blocks.slice(first, full).filter((block) => block !== NULL_BLOCK);
  const groups = source.layers * source.kvHeads;
  const row = Math.ceil(tokens / 8);
  const bits = new Uint8Array(groups * row);
  const counts = new Uint32Array(tokens);
  for (let layer = 0; layer < source.layers; layer++) {
    for (let head = 0; head < source.kvHeads; head++) {
      const start = (layer * source.kvHeads + head) * row;
      for (const block of resident) {
        const positions = source.positions(layer, block, head);
        for (let slot = 0; slot < positions.length; slot++) {
          const token = positions[slot]! - from;
          counts[token]! += 1;
          bits[start + (token >> 3)]! |= 1 << (token & 7);
        }
      }
    }
  }
  return {
    from,
    shares: Buffer.from(Array.from(counts, (count) => shareOf(count, groups))),
    groups: Buffer.from(bits.length > MAX_GROUP_BYTES ? [] : bits),
  };
}

/** Only none is 0, and only all is 255. */
function shareOf(count: number, groups: number): number {
  if (count === 0 || count === groups) return count === 0 ? 0 : ALL;
  return Math.min(ALL - 1, Math.max(1, Math.round((count / groups) * ALL)));
}
