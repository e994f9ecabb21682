import type { KeepStages } from './keep.ts';

/** What one measured step says about a request. The arrays belong to the caller and are valid during the call only. */
export interface Measurement {
  /** Tokens in the cache after the step: the clock of every policy. */
  tokens: number;
  /** Resident logical blocks beyond prompt and sinks, ascending; `count` of them. */
  blocks: Int32Array;
  count: number;
  /** The first `evictable` of `blocks` are not protected; `hits` is defined for these. */
  evictable: number;
  /** 1 where the block was read, by the hit rule that the policy asked for. */
  hits: Uint8Array;
  /**
   * Attention mass of each of `blocks`, mean over all head groups, not renormalised. Only when `mass` was asked for.
   */
  mass: Float64Array;
}

/** What answer probes found so far. */
export interface ProbeReading {
  /** Probes so far. 0: the other fields mean nothing. */
  count: number;
  /** Blocks below this index were seen by at least one probe. */
  seen: number;
  /**
   * The most attention that one head group put on each block at one step of a probed answer: running maximum, decayed
   * by every probe. Index: logical block.
   */
  masses: Float64Array;
}

/** What a policy may know of a request when it scores. */
export interface RequestFacts {
  /** Survives a reconnect: the gateway's id and choice index, or the engine's handle. */
  identity: string;
  tokens: number;
  probe: ProbeReading;
  /**
   * The segment that the middle of each admitted block lies in, ascending; undefined: the engine names no segments.
   * Index: logical block.
   */
  segments: Int32Array | undefined;
}

/** The parameters of a profile that policies use. */
export interface PolicyParameters {
  /** Tokens after which a hit counts half. */
  halfLifeTokens: number;
  seed: number;
  /** Weight of attention in probed answers; that of the reasoning weighs 1. */
  answerWeight: number;
  /** Whether the best block of a segment is worth more than its others. */
  segments: boolean;
  /** Whether what the reasoning reads counts. */
  recurrence: boolean;
  /** Of the room of a merge: what goes by what a probed answer reads. */
  answerShare: number;
  /** Of the room of a merge: what goes by attention, what the answer takes included. */
  attentionShare: number;
  /** R-KV's weight of attention beside redundancy. */
  rkvLambda: number;
}

/** The state of one policy for one request. Deterministic: the same calls give the same values. */
export interface Policy {
  /** The block leaves the protected window and takes part from now on. Once for each block, ascending. */
  admit?(block: number, tokens: number): void;
  /** Called for every measured step, before the blocks that became evictable with it are admitted. */
  observe?(measurement: Measurement): void;
  /**
   * `out[i]` becomes the value of keeping `blocks[i]`; the lowest leaves first. Finite for every admitted block, and
   * without side effect: asking twice gives the same answer. Values of several requests compare by `comparison` only.
   */
  score(blocks: Int32Array, count: number, request: RequestFacts, out: Float64Array): void;
}

/**
 * Whether a policy asks for hits, and for which: those of the profile's test, or the upper half of the blocks by mass.
 */
export type HitRule = 'none' | 'profile' | 'top_half';

/** How the values of requests under the same policy compare with each other. */
export interface Comparison {
  /**
   * What a value weighs when a request's demand is read from its blocks: itself, its exponential (values that are
   * logarithms), or the same as every other (values that only say which comes first).
   */
  weight: 'value' | 'exp' | 'equal';
  /**
   * Added to a request's values before they are compared with those of another request, so that times become ages.
   * Left out: they compare as they are.
   */
  shift?(now: { tokens: number; blockSize: number }, parameters: PolicyParameters): number;
}

/** One row of the registry. */
export interface PolicyDefinition {
  /** One sentence for people. */
  summary: string;
  source: string;
  /** false: never evicts, whatever the controller says. */
  evicts: boolean;
  hits: HitRule;
  /** Whether `observe` reads `mass`. */
  mass: boolean;
  /**
   * Whether blocks are merged rather than evicted, where the engine can and the profile does not say otherwise; needs
   * `keep`.
   */
  merges: boolean;
  /** Whether answer probes are worth their tokens. */
  needsProbe: boolean;
  comparison: Comparison;
  /**
   * How it values tokens where an engine merges; `probed`: an answer probe has read the request's cache. undefined: it
   * knows blocks alone, and cannot merge.
   */
  keep: ((parameters: PolicyParameters, probed: boolean) => KeepStages) | undefined;
  /**
   * The same for engines that keep no statistics of tokens: by what is in the cache alone. Left out: whole blocks are
   * evicted there.
   */
  keepUnmeasured?: KeepStages;
  create(parameters: PolicyParameters): Policy;
}
