import type { Merge } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { RequestState } from '../request/request-state.ts';

/** Blocks that one merge looks at, at most: an engine compares the keys in them pair by pair. */
export const MAX_MERGED_BLOCKS = 64;

/**
 * The merge that frees `n` blocks, or as many as there are but one: the least valuable ones are freed, and all others
 * that may be merged hold what the engine keeps, the newest of them where there are too many. undefined: there are not
 * two blocks to merge.
 */
export function planMerge(state: RequestState, n: number): Merge | undefined {
  const blocks = state.ranking.candidates();
  const from = state.ranking.leastValuable(Math.min(n, blocks.length - 1, MAX_MERGED_BLOCKS - 1));
  if (from.length === 0) return undefined;
  const freed = new Set(from);
  return {
    into: blocks.filter((block) => !freed.has(block)).slice(from.length - MAX_MERGED_BLOCKS),
    from,
    rule: state.nextKeepRule(),
  };
}
