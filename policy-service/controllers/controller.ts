import type { BlockTable } from '../block-table.ts';

/** What a controller sees of a request. */
export interface Member {
  readonly table: BlockTable;
  /** Output blocks that the request may hold; undefined under a controller that knows no budget. */
  readonly budgetBlocks: number | undefined;
  /** The end of thinking was seen: from now on only the answer reads. */
  readonly isAnswering: boolean;
}

export interface Pool {
  freeBlocks: number;
  totalBlocks: number;
  waiting: number;
  /** Blocks of plans that are under way: they will be free. */
  promisedBlocks: number;
}

/** How many blocks requests give up. One instance for each engine and group of requests; it may remember. */
export interface Controller {
  /**
   * Sets `quotas[i]` to the number of blocks that `members[i]` should give up now, at least 0. It may be more than the
   * request can give; the rest is asked for again at a later step.
   */
  quotas(members: readonly Member[], pool: Pool, quotas: number[]): void;
  /** Whether the request may have to give up blocks within its next `aheadTokens` tokens. */
  expectsEviction(member: Member, pool: Pool, aheadTokens: number): boolean;
}
