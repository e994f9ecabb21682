export interface ProbeOptions {
  /** Tokens between probes; rounded to whole blocks. */
  everyTokens: number;
  /** A probe waits until the output has grown by this factor since the last one; 1: `everyTokens` alone decides. */
  growth: number;
  /** Most tokens between probes while the request loses blocks. */
  pressureEveryTokens: number;
  /** Most tokens that a probe generates. */
  maxTokens: number;
  /** A probe is stopped after this many steps in which it read no new block; 0: it runs to its end. */
  stopAfter: number;
  /** Earlier findings keep this share at each probe. */
  decay: number;
  /** From this age in tokens on, what a probe reads of a block counts in full; 0: always. */
  ageTokens: number;
  /** Most tokens that probes may cost, as a share of the tokens that the request itself has generated. */
  maxExtraShare: number;
  /** Counted as generated beforehand: a request that is short of memory early is probed before it loses anything. */
  creditTokens: number;
}

/** How far a request has come. */
export interface Progress {
  /** In the cache, prompt included. */
  tokens: number;
  /** Beyond the prompt. */
  generated: number;
  /** Full blocks of output, holes included. */
  completedBlocks: number;
  /** Blocks that decisions treat as gone. */
  goneBlocks: number;
  blockSize: number;
}

type ProbeState =
  | { kind: 'idle' }
  | { kind: 'refused' }
  | { kind: 'asked'; atTokens: number }
  | { kind: 'running'; atTokens: number };

/** Decides when a request is probed: one probe at a time, every few blocks, within its cost limit. */
export class ProbeSchedule {
  /** Tokens that the engine has computed for probes of this request. */
  spentTokens = 0;
  finished = 0;
  #state: ProbeState = { kind: 'idle' };
  /** Progress at the last probe. */
  #last: Progress | undefined;
  #retryAtTokens = 0;
  /** Tokens of the end-of-thinking sequence. */
  readonly #suffixTokens: number;

  constructor(suffixTokens: number) {
    this.#suffixTokens = suffixTokens;
  }

  isDue(progress: Progress, options: ProbeOptions): boolean {
    if (this.#state.kind !== 'idle' && !this.#isOverdue(progress.tokens, options)) return false;
    if (progress.completedBlocks < 1 || progress.tokens < this.#retryAtTokens) return false;
    if (this.#last !== undefined && !this.#isTime(this.#last, progress, options)) return false;
    return (
      this.spentTokens + this.#nextCost(progress, options) <=
      options.maxExtraShare * (progress.generated + options.creditTokens)
    );
  }

  #isTime(last: Progress, now: Progress, options: ProbeOptions): boolean {
    const { blockSize } = now;
    const passed = (tokens: number) =>
      now.completedBlocks - last.completedBlocks >= Math.max(1, Math.round(tokens / blockSize));
    if (now.goneBlocks > last.goneBlocks && passed(options.pressureEveryTokens)) return true;
    return passed(options.everyTokens) && now.generated >= options.growth * last.generated;
  }

  /** Tokens that a probe costs at most: a fork shares whole blocks, so it computes the unfilled one again. */
  #nextCost({ tokens, blockSize }: Progress, { maxTokens }: ProbeOptions): number {
    return (tokens % blockSize) + this.#suffixTokens + maxTokens;
  }

  /** A probe was asked for or is running: until it ends it shares the request's blocks. */
  isBusy(tokens: number, options: ProbeOptions): boolean {
    const { kind } = this.#state;
    return (kind === 'asked' || kind === 'running') && !this.#isOverdue(tokens, options);
  }

  asked(progress: Progress): void {
    this.#state = { kind: 'asked', atTokens: progress.tokens };
    this.#last = progress;
  }

  started(tokens: number): void {
    this.#state = { kind: 'running', atTokens: tokens };
  }

  /** The engine did not start the probe. The next attempt waits until another block is filled. */
  declined(tokens: number, blockSize: number): void {
    if (this.#state.kind !== 'asked') return;
    this.#state = { kind: 'idle' };
    this.#last = undefined;
    this.#retryAtTokens = tokens + blockSize;
  }

  /** The engine will not probe this request. */
  refused(): void {
    if (this.#state.kind === 'asked') this.#state = { kind: 'refused' };
  }

  ended(costTokens: number): void {
    this.#state = { kind: 'idle' };
    this.spentTokens += costTokens;
    this.finished += 1;
  }

  /** An answer that never came (a report was lost) must not end probing for good. */
  #isOverdue(tokens: number, options: ProbeOptions): boolean {
    if (this.#state.kind === 'idle' || this.#state.kind === 'refused') return false;
    return tokens - this.#state.atTokens > 4 * (options.everyTokens + options.maxTokens);
  }
}
