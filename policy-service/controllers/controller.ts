import type { z } from 'zod';
import type { BlockTable } from '../request/block-table.ts';

/** What a controller sees of a request. */
export interface Member {
  readonly table: BlockTable;
  /** Output blocks that the request may hold; undefined under a controller that knows no budget. */
  readonly budgetBlocks: number | undefined;
  /** The end of thinking was seen: from now on only the answer reads. */
  readonly isAnswering: boolean;
  /** Its blocks are merged, not evicted: which blocks are freed says nothing about which tokens stay. */
  readonly merges: boolean;
  readonly ranking: Worth;
}

/** What a request's blocks are worth. */
export interface Worth {
  /**
   * Writes the values of the blocks that may leave now to `out`, from index `at` on, in any order. Returns how many, at
   * most `table.liveCount`. They compare with those of other requests under the same policy.
   */
  comparableValues(out: Float64Array, at: number): number;
  /**
   * The share of all blocks that ever were evictable, holes included, that it takes to hold `cover` of their value; 1
   * before there are any. What a block was worth when it left still counts, so evictions do not lower a demand.
   */
  demand(cover: number): number;
}

export interface Pool {
  freeBlocks: number;
  totalBlocks: number;
  waiting: number;
  /** Blocks in plans without an answer yet: they will be free. */
  promisedBlocks: number;
}

/** How many blocks requests lose. One instance for each engine and group of requests; it may remember. */
export interface Controller {
  /**
   * Sets `quotas[i]` to the number of blocks that `members[i]` should lose now, at least 0. It may be more than the
   * request can lose; the rest is asked for again at a later step.
   */
  quotas(members: readonly Member[], pool: Pool, quotas: number[]): void;
  /** Whether the request may have to lose blocks within its next `aheadTokens` tokens. */
  expectsEviction(member: Member, pool: Pool, aheadTokens: number): boolean;
}

/** One row of the registry. */
export interface ControllerDefinition<S extends z.ZodType, O> {
  /** One sentence for people. */
  summary: string;
  /** Whose requests share one instance: all, or those of one profile. */
  group: 'all' | 'profile';
  /** The controller in a configuration file. */
  schema: S;
  /** Its options in the form that the service uses. */
  options(config: z.output<S>): O;
  create(options: O): Controller;
}

/** Lets the compiler infer the types of a definition. */
export function defineController<S extends z.ZodType, O>(
  definition: ControllerDefinition<S, O>,
): ControllerDefinition<S, O> {
  return definition;
}

/** Whole blocks that hold `tokens` tokens. */
export function blocksOf(tokens: number, { blockSize }: BlockTable): number {
  return Math.ceil(tokens / blockSize);
}

/** All output blocks that the request will ever have had when it has `aheadTokens` more tokens, holes included. */
export function outputBlocksEver({ table }: Member, aheadTokens: number): number {
  return table.outputBlocksAt(table.tokens + aheadTokens) + table.gone;
}
