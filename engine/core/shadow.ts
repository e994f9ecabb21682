import type { Merge, ShadowPlan } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { MergeBlocks } from '../model/cache-layout.ts';
import type { ShadowCache } from '../model/shadow-cache.ts';
import type { StepModel } from '../model/step-model.ts';
import { askAgain } from './ask.ts';
import type { BlockPool } from './block-pool.ts';
import { checkEvictions, type Protection, type Rejected, reject } from './evict.ts';
import { blocksOf, objections } from './merge.ts';
import type { Sequence } from './sequence.ts';

export interface ShadowTarget {
  pool: BlockPool;
  protection: Protection;
  shadowCache(): ShadowCache;
  /** Whether the model can follow the rule of a merge. */
  canFollow(rule: Merge['rule']): boolean;
  ask: StepModel['ask'];
}

/**
 * Marks what a shadow plan would let go; what it asks for is refused for the same reasons as if it were to be carried
 * out.
 *
 * @returns the logical blocks that would have become holes
 */
export function shadow(sequence: Sequence, plan: ShadowPlan, target: ShadowTarget, rejected: Rejected): number[] {
  const { pool, protection } = target;
  if (plan.begin || sequence.shadow === undefined) sequence.shadow = target.shadowCache();
  const cache = sequence.shadow;
  cache.readShare = plan.readShare;
  const isGone = (index: number) => cache.isGone(sequence.blocks[index] ?? 0);
  const check = checkEvictions(sequence, plan.evict, pool, protection);
  const evicted = check.evicted.filter((index) => !isGone(index));
  for (const [reason, blocks] of check.rejected) for (const block of blocks) reject(rejected, reason, block);
  for (const index of check.evicted) if (isGone(index)) reject(rejected, 'not_resident', index);
  cache.evict(evicted.map((index) => sequence.blocks[index]!));
  for (const merge of plan.merges) {
    const against = objections(sequence, merge, pool, protection);
    for (const index of [...merge.into, ...merge.from]) if (isGone(index)) reject(against, 'not_resident', index);
    if (!target.canFollow(merge.rule)) against.set('unknown_rule', [...merge.from]);
    for (const [reason, blocks] of against) for (const block of blocks) reject(rejected, reason, block);
    if (against.size > 0) continue;
    askAgain(sequence, merge, pool, target);
    cache.merge(held(blocksOf(sequence, merge, pool), cache), merge.rule);
    evicted.push(...merge.from);
  }
  return evicted.sort((a, b) => a - b);
}

/** Without the blocks beside that would be gone. */
function held(blocks: MergeBlocks, cache: ShadowCache): MergeBlocks {
  return { ...blocks, beside: blocks.beside.filter((block) => !cache.isGone(block)) };
}
