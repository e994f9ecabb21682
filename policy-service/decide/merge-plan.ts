import type { Merge } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { RequestState } from '../request/request-state.ts';

/** The most blocks in one merge: an engine compares their keys pair by pair. */
export const MAX_MERGED_BLOCKS = 64;

/**
 * The merge that frees the `n` least valuable blocks, or all but one if there are not more. The other blocks that may
 * be merged take what the engine keeps; if there are too many, only the newest do. undefined: there are fewer than two
 * blocks.
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
