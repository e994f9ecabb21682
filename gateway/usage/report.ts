import { within } from '../../common/time.ts';
import type { RequestState } from '../../proto/gen/crystalkv/v1/policy.ts';

/** More choices than this are not asked about. */
const MAX_CHOICES = 16;

/** Asks what became of the cache of one choice; undefined: it is not known. Rejects when there is no answer. */
export type AskState = (choice: number) => Promise<RequestState | undefined>;

/**
 * The `crystal_kv` member of a response's usage, as JSON text: blocks of all choices together, those that are kept and
 * those that were evicted at the end, and the most that was held at once as a share of what a full cache holds. Undefined
 * when a choice is not known, or no answer came within `timeoutMs`. Never rejects.
 */
export async function cacheReport(ask: AskState, choices: number, timeoutMs: number): Promise<string | undefined> {
  if (choices > MAX_CHOICES) return undefined;
  const all = Promise.all(Array.from({ length: choices }, (_, choice) => ask(choice))).catch(() => undefined);
  const states = await within(all, timeoutMs);
  if (states === undefined) return undefined;
  const sum = { blocks: 0, kept: 0, evicted: 0, peak: 0 };
  for (const state of states) {
    if (state === undefined) return undefined;
    sum.blocks += state.blocks;
    sum.kept += state.residentBlocks;
    sum.evicted += state.evictedBlocks;
    sum.peak += state.peakResidentBlocks;
  }
  return JSON.stringify({
    blocks: sum.blocks,
    blocks_kept: sum.kept,
    blocks_evicted: sum.evicted,
    peak_share: sum.blocks === 0 ? 0 : Math.round((sum.peak / sum.blocks) * 10_000) / 10_000,
  });
}
