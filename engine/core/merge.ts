import type { Merge } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { MergeBlocks } from '../model/cache-layout.ts';
import { type BlockPool, NULL_BLOCK } from './block-pool.ts';
import { evictableRange, type Protection, type Rejected, reject } from './evict.ts';
import type { Sequence } from './sequence.ts';

/** Why a merge cannot be carried out: the blocks that prevent it, by reason. Empty: it can. */
export function objections(
  sequence: Sequence,
  { into, from }: Merge,
  pool: BlockPool,
  protection: Protection,
): Rejected {
  const rejected: Rejected = new Map();
  const named = [...into, ...from];
  if (into.length === 0 || from.length === 0 || new Set(named).size < named.length) {
    rejected.set('invalid_merge', named);
    return rejected;
  }
  const range = evictableRange(sequence.promptTokens, sequence.computed, pool.blockSize, protection);
  for (const index of named.sort((a, b) => a - b)) {
    const block = sequence.blocks[index];
    if (block === undefined) reject(rejected, 'out_of_range', index);
    else if (index < range.from || index >= range.to) reject(rejected, 'protected', index);
    else if (block === NULL_BLOCK) reject(rejected, 'not_resident', index);
    // a probe still reads the blocks as they were when it was forked
    else if (pool.references(block) > 1) reject(rejected, 'shared', index);
  }
  return rejected;
}

/** The pool's blocks for a merge without objections; `beside` are the sequence's other full output blocks. */
export function blocksOf(sequence: Sequence, { into, from }: Merge, pool: BlockPool): MergeBlocks {
  const named = new Set([...into, ...from]);
  const firstOutput = pool.blocksFor(sequence.promptTokens);
  const full = pool.filledBy(sequence.computed);
  const at = (index: number) => sequence.blocks[index]!;
  return {
    into: into.map(at),
    from: from.map(at),
    beside: sequence.blocks
      .slice(0, full)
      .filter((block, index) => index >= firstOutput && block !== NULL_BLOCK && !named.has(index)),
  };
}
