import { type EndReason, type EvictionMode, FINISHES, type RejectReason } from '../common/protocol.ts';
import type { AttachRequest } from '../proto/gen/crystalkv/v1/policy.ts';

/** What the engine tells the policy service. */
export type Report = NonNullable<AttachRequest['message']>;

/** How the next token is chosen. */
export interface Sampling {
  /** Limit of generated tokens, at least 1. */
  maxTokens: number;
  /** 0 is greedy. */
  temperature: number;
  /** In (0, 1]; 1 keeps every token. */
  topP: number;
  /** 0 keeps every token. */
  topK: number;
  /** Makes sampling repeatable. Undefined: a random seed. */
  seed: number | undefined;
  /** Go on after the end-of-sequence token. */
  ignoreEos: boolean;
  /** Token ids that end the output, besides the end-of-sequence token. The stop token itself is reported. */
  stopTokenIds: readonly number[];
  /** How many alternatives to report with each token; undefined: no log probabilities. */
  logprobs: number | undefined;
}

/** What a request says about its cache, from `vllm_xargs`. */
export interface CacheOptions {
  /** The gateway's id; empty when the request did not come through one. */
  crystalkvId: string;
  /** Empty: the policy service's default profile. */
  profile: string;
  budgetTokens: number | undefined;
  mode: EvictionMode | undefined;
}

/** One sequence to generate. An API request for `n` choices becomes `n` sequences with the same prompt. */
export interface GenerateRequest {
  /** Unique among live sequences. */
  id: string;
  choiceIndex: number;
  promptTokenIds: readonly number[];
  sampling: Sampling;
  cache: CacheOptions;
}

export interface TokenLogprob {
  tokenId: number;
  /** Natural logarithm, of the model's own distribution (temperature 1). */
  logprob: number;
  /** Likeliest first. */
  top: readonly { tokenId: number; logprob: number }[];
}

/** Why a client's sequence ended; only probes are `dropped`. */
export type FinishReason = Exclude<EndReason, 'dropped'>;
export const FINISH_REASONS: readonly FinishReason[] = FINISHES.words.filter((reason) => reason !== 'dropped');

/** What a sequence produces: tokens as they come (the one that ends it too), then exactly one end. */
export type GenerateEvent =
  | { type: 'token'; tokenId: number; logprob: TokenLogprob | undefined }
  | { type: 'finished'; reason: FinishReason; promptTokens: number; cachedTokens: number; generatedTokens: number };

/** Counts since the start, and current states. Blocks are KV blocks of `EngineInfo.blockSize` tokens. */
export interface EngineStats {
  step: number;
  running: number;
  waiting: number;
  freeBlocks: number;
  totalBlocks: number;
  preemptions: number;
  promptTokens: number;
  generatedTokens: number;
  /** Prompt tokens looked up in the prefix cache, and found there. */
  prefixCacheQueries: number;
  prefixCacheHits: number;
  /** Blocks that were evicted or freed by merges. */
  evictedBlocks: number;
  merges: number;
  probes: number;
  probeTokens: number;
  /** How often a sequence's attention was measured in a step. */
  measuredRows: number;
  finished: Record<FinishReason, number>;
  policy: PolicyStats;
}

/** What happened to the policy service's decisions. */
export interface PolicyStats {
  connected: boolean;
  /** Steps for which a lockstep engine got no plan in time, or that were computed without a stream. */
  missedSteps: number;
  plans: number;
  rejected: Record<RejectReason, number>;
  /** Reports that were dropped because the stream was slower than the engine. */
  droppedReports: number;
}

export interface EngineInfo {
  model: string;
  maxModelLength: number;
  vocabSize: number;
  eosTokenId: number;
  blockSize: number;
  /** Bytes of a block's keys and values. */
  blockBytes: number;
  totalBlocks: number;
}

/** The engine as its HTTP side sees it. The model runs in a worker thread. */
export interface Engine {
  readonly info: EngineInfo;
  /**
   * Queues a sequence. Events arrive on the event loop, in order. After `abort`, the end says `abort`. Throws
   * RangeError, and queues nothing, when the prompt is empty, contains an unknown token id, or leaves no room for one
   * token in `maxModelLength`.
   */
  submit(request: GenerateRequest, onEvent: (event: GenerateEvent) => void): Submission;
  stats(): EngineStats;
  /** The listener is called after the worker has died and all running sequences have ended with `abort`. */
  onFailure(listener: (error: Error) => void): void;
  /** Aborts running sequences, then stops the worker and the stream to the policy service. */
  close(): Promise<void>;
}

export interface Submission {
  /** Takes effect before the next step; does nothing after the end. */
  abort(): void;
}
