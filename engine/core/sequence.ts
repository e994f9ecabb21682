import type { RequestPhase } from '../../common/protocol.ts';
import type { GenerateRequest } from '../types.ts';
import { NULL_BLOCK } from './block-pool.ts';

/** What a fork knows of the request whose answer it tries. */
export interface ForkOf {
  parent: Sequence;
  /** Tokens whose blocks it shares with its parent. */
  sharedTokens: number;
  /** Position of the first token that is its own. */
  ownFrom: number;
}

/** One sequence of tokens with its block table: a request's choice, or a fork of one that probes its answer. */
export class Sequence {
  readonly handle: number;
  readonly request: GenerateRequest;
  readonly fork: ForkOf | undefined;
  /** Prompt, then what was generated. The last one is not in the cache yet. */
  readonly tokenIds: number[];
  readonly promptTokens: number;
  /** Logical order; NULL_BLOCK is a hole. */
  blocks: number[] = [];
  /** Leading tokens whose keys and values are in the cache, holes counted. */
  computed = 0;
  /** Counts preemptions: the cache of another epoch is gone. */
  epoch = 0;
  /** Prompt tokens that the prefix cache had at the first admission. */
  cachedTokens = 0;
  /** Tokens computed for it in all. */
  computedInAll = 0;
  /** Length of `tokenIds` at which the end of thinking was complete; undefined while thinking. */
  thinkingEnd: number | undefined;
  /** Positions at which segments began and that were not reported yet. */
  segmentStarts: number[] = [];
  /** The fork that probes this one's answer now. */
  probe: Sequence | undefined;
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

  /** Tokens that are known and not in the cache yet: more than one while prefilling, also after a preemption. */
  get pending(): number {
    return this.tokenIds.length - this.computed;
  }

  get phase(): RequestPhase {
    if (this.computed < this.promptTokens) return 'prefill';
    return this.thinkingEnd === undefined ? 'thinking' : 'answer';
  }

  /** Logical indices of the holes, ascending. */
  get holes(): number[] {
    return this.blocks.flatMap((block, index) => (block === NULL_BLOCK ? [index] : []));
  }

  /** Everything that the cache held of it is gone; the blocks must have been released. */
  resetCache(): void {
    this.blocks = [];
    this.computed = 0;
    this.epoch += 1;
  }
}
