import type { KeepRule } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { AnswerQueries } from './answer-queries.ts';
import type { MergeBlocks } from './cache-layout.ts';
import type { ModelConfig } from './config.ts';
import type { MarkedReads, ShadowCache } from './shadow-cache.ts';
import type { StatisticsOptions } from './token-statistics.ts';

/** Consecutive tokens of one sequence that are computed in one step. */
export interface Chunk {
  tokenIds: readonly number[];
  /** Position of the first token. */
  position: number;
  /** Block table, logical order; 0 (the null block) is a hole. It covers the chunk's last position. */
  blocks: readonly number[];
  /** Compute the logits of the last token. */
  logits: boolean;
  /** Measure what the last token attends to. */
  measure: boolean;
  /** Which queries count in the statistics of the tokens that they read; undefined: none. */
  counts?: CountedChunk | undefined;
  /** Takes the queries that count, to ask them again; undefined: nobody will. */
  queries?: AnswerQueries | undefined;
  /** What shadow plans marked: what the measured token gives to it is added up. */
  shadow?: ShadowCache | undefined;
}

/** Blocks are logical ones. */
export interface CountedChunk {
  /** Position of the first query that counts. */
  position: number;
  /** They count for the tokens of these blocks, `to` not included. */
  from: number;
  to: number;
  /** They are those of an answer probe. */
  probe: boolean;
}

export interface ChunkResult {
  /** [vocab] for a chunk that asked for them; a view that the next forward pass overwrites. */
  logits: Float32Array | undefined;
  /** Log codes [layers * kvHeads][resident blocks], for a chunk that asked to be measured. */
  masses: Uint8Array | undefined;
  /** For a chunk that was measured and has marked tokens. */
  shadow?: MarkedReads | undefined;
}

/** The model, as the engine's core uses it. */
export interface StepModel {
  readonly config: Pick<ModelConfig, 'layers' | 'kvHeads' | 'eosTokenId'>;
  /** One pass over all chunks; results in their order. */
  forward(chunks: readonly Chunk[]): ChunkResult[];
  /**
   * Puts the tokens of full blocks into fewer blocks. Each layer and KV head keeps its own choice, by the rule; without
   * one, the tokens that later tokens repeat least.
   */
  merge(blocks: MergeBlocks, rule?: KeepRule): void;
  /** [blockSize] Positions of the tokens that a block of the pool holds for one layer and KV head. */
  positions(layer: number, block: number, head: number): ArrayLike<number>;
  /** Whether `merge` can follow a rule. */
  canFollow(rule: KeepRule): boolean;
  /** The statistics of each token that are kept from now on; undefined: none. */
  keepStatistics(options: StatisticsOptions | undefined): void;
  /** For the queries of a probe, whose first own token is at `start` and which shares so many tokens with its request. undefined: nobody wants to know what answers read. */
  answerQueries(start: number, sharedTokens: number): AnswerQueries | undefined;
  /**
   * Asks the queries of a probe again, as if its answer began after `tokens` tokens: what they would give to the tokens in the
   * logical blocks from `from` on counts as what an answer reads. `blocks` is the request's table.
   */
  ask(queries: AnswerQueries, blocks: readonly number[], tokens: number, from: number): void;
  /** For a sequence of which nothing is marked yet. Merges choose as `merge` does. */
  shadowCache(): ShadowCache;
}
