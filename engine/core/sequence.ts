import type { RequestPhase } from '../../common/protocol.ts';
import type { AnswerQueries } from '../model/answer-queries.ts';
import type { ShadowCache } from '../model/shadow-cache.ts';
import type { GenerateRequest } from '../types.ts';
import { NULL_BLOCK } from './block-pool.ts';

/** How a probe was forked. */
export interface ForkOf {
  parent: Sequence;
  /** Tokens whose blocks it shares with its parent. */
  sharedTokens: number;
  /** Position of the first token that is its own. */
  ownFrom: number;
}

/** One sequence of tokens with its block table: a choice of a request, or an answer probe that was forked from one. */
export class Sequence {
  readonly handle: number;
  readonly request: GenerateRequest;
  readonly fork: ForkOf | undefined;
  /** The prompt and what was generated. The last token is not in the cache yet. */
  readonly tokenIds: number[];
  readonly promptTokens: number;
  /** Logical order; NULL_BLOCK is a hole. */
  blocks: number[] = [];
  /** Leading tokens whose keys and values were computed and stored; tokens in holes count. */
  computed = 0;
  /** Number of preemptions. Each one throws the cache away. */
  epoch = 0;
  /** Prompt tokens found in the prefix cache when the sequence was first admitted. */
  cachedTokens = 0;
  /** All tokens computed for it, including those computed again. */
  computedInAll = 0;
  /** Whether the end of thinking was generated. */
  hasThought = false;
  /** Positions at which segments began, as far as not reported yet. */
  segmentStarts: number[] = [];
  /** The answer probe of this sequence that is running. */
  probe: Sequence | undefined;
  /** Of a probe, its own; of a request, those of its newest probe in this epoch. undefined: there are none. */
  queries: AnswerQueries | undefined;
  /** What shadow plans would have let go; undefined: there were none in this epoch. */
  shadow: ShadowCache | undefined;
  /** Prompt blocks already offered to the prefix cache in this epoch. */
  published = 0;

  constructor(handle: number, request: GenerateRequest, fork?: ForkOf) {
    this.handle = handle;
    this.request = request;
    this.fork = fork;
    this.tokenIds = [...request.promptTokenIds];
    this.promptTokens = request.promptTokenIds.length;
  }

  get generated(): number {
    return this.tokenIds.length - this.promptTokens;
  }

  /** Known tokens that are not in the cache yet: more than one during a prefill, also after a preemption. */
  get pending(): number {
    return this.tokenIds.length - this.computed;
  }

  get phase(): RequestPhase {
    if (this.computed < this.promptTokens) return 'prefill';
    return this.hasThought ? 'answer' : 'thinking';
  }

  /** Logical indices of the holes, ascending. */
  get holes(): number[] {
    return this.blocks.flatMap((block, index) => (block === NULL_BLOCK ? [index] : []));
  }

  /** Call this after its blocks were released by a preemption. */
  resetCache(): void {
    this.blocks = [];
    this.computed = 0;
    this.shadow = undefined;
    this.queries = undefined;
    this.epoch += 1;
  }
}
