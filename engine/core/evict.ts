import type { RejectReason } from '../../common/protocol.ts';
import { type BlockPool, NULL_BLOCK } from './block-pool.ts';
import type { Sequence } from './sequence.ts';

/** What no plan may touch besides the prompt and the unfilled tail, in tokens. */
export interface Protection {
  /** The first tokens of a sequence (attention sinks, StreamingLLM 2309.17453). */
  sinkTokens: number;
  /** The newest tokens: the reasoning step that is being written. */
  recentTokens: number;
}

/** Logical blocks that were rejected, by reason. */
export type Rejected = Map<RejectReason, number[]>;

export interface Eviction {
  /** Blocks that became holes, ascending. */
  evicted: number[];
  rejected: Rejected;
}

export function reject(rejected: Rejected, reason: RejectReason, index: number): void {
  const list = rejected.get(reason) ?? [];
  list.push(index);
  rejected.set(reason, list);
}

/** Logical blocks [from, to) that may be evicted from a sequence of this length. */
export function evictableRange(
  promptTokens: number,
  computedTokens: number,
  blockSize: number,
  protection: Protection,
): { from: number; to: number } {
  const from = Math.ceil(Math.max(promptTokens, protection.sinkTokens) / blockSize);
  const to = Math.floor(Math.max(0, computedTokens - protection.recentTokens) / blockSize);
  return { from, to: Math.max(from, to) };
}

/**
 * Sorts blocks into those that may become holes and those that must not, with the reason. Changes nothing. A block that
 * only the sequence's own probe shares may go: it leaves the table now, and is freed when the probe ends.
 */
export function checkEvictions(
  sequence: Sequence,
  indices: readonly number[],
  pool: BlockPool,
  protection: Protection,
): Eviction {
  const { from, to } = evictableRange(sequence.promptTokens, sequence.computed, pool.blockSize, protection);
  const evicted: number[] = [];
  const rejected: Rejected = new Map();
  for (const index of [...new Set(indices)].sort((a, b) => a - b)) {
    const block = sequence.blocks[index];
    if (block === undefined) reject(rejected, 'out_of_range', index);
    else if (index < from || index >= to) reject(rejected, 'protected', index);
    else if (block === NULL_BLOCK) reject(rejected, 'not_resident', index);
    else if (pool.references(block) > (sequence.probe?.blocks[index] === block ? 2 : 1))
      reject(rejected, 'shared', index);
    else evicted.push(index);
  }
  return { evicted, rejected };
}

/** Turns blocks of a sequence into holes and frees them. A block that must not go is rejected; the others still go. */
export function evict(
  sequence: Sequence,
  indices: readonly number[],
  pool: BlockPool,
  protection: Protection,
): Eviction {
  const check = checkEvictions(sequence, indices, pool, protection);
  release(sequence, check.evicted, pool);
  return check;
}

/** Turns blocks into holes and frees them. */
export function release(sequence: Sequence, indices: readonly number[], pool: BlockPool): void {
  for (const index of indices) {
    pool.release([sequence.blocks[index]!]);
    sequence.blocks[index] = NULL_BLOCK;
  }
}
