import type { RequestState } from '../request/request-state.ts';

/** A block counts as touched for this many tokens after it was filled, and after each read by the reasoning. */
const RECENT_TOKENS = 256;

/**
 * After the end of thinking only what the answer reads matters: the blocks that may leave and that neither any probe
 * nor the newest reasoning read, ascending. None before the first probe: then nothing is known of the answer.
 */
export function untouchedBlocks(state: RequestState): number[] {
  const { probe, reads, tokens, table, profile } = state;
  if (probe.count === 0) return [];
  const { share } = profile.hits;
  return state.ranking
    .candidates()
    .filter(
      (block) =>
        block < probe.seen &&
        probe.strongest[block]! < share &&
        reads.lastRead(block) + RECENT_TOKENS <= tokens &&
        (block + 1) * table.blockSize + RECENT_TOKENS <= tokens,
    );
}
