export interface ProbeOptions {
  /** Tokens between probes; rounded to whole blocks. */
  everyTokens: number;
  /** Most tokens that a probe generates. */
  maxTokens: number;
  /** What is known keeps this share at each probe. */
  decay: number;
  /** Most tokens that probes may cost, as a share of the tokens that the request itself has generated. */
  maxExtraShare: number;
}

type ProbeState =
  | { kind: 'idle' }
  | { kind: 'refused' }
  | { kind: 'asked'; atTokens: number }
  | { kind: 'running'; atTokens: number };

/** When a request is probed: one at a time, every few blocks, within its cost bound. */
export class ProbeSchedule {
  /** Tokens that the engine has computed for probes of this request. */
  spentTokens = 0;
  finished = 0;
  #state: ProbeState = { kind: 'idle' };
  #lastBlocks: number | undefined;
  #retryAtTokens = 0;
  #costOfOne: number;

  constructor(expectedCost: number) {
    this.#costOfOne = expectedCost;
  }

  /**
   * Whether a probe is due after `tokens` computed tokens, `generated` of them beyond the prompt, with `completedBlocks`
   * full blocks of output.
   */
  isDue(tokens: number, generated: number, completedBlocks: number, blockSize: number, options: ProbeOptions): boolean {
    if (this.#state.kind !== 'idle' && !this.#isOverdue(tokens, options)) return false;
    if (completedBlocks < 1 || tokens < this.#retryAtTokens) return false;
    const interval = Math.max(1, Math.round(options.everyTokens / blockSize));
    if (this.#lastBlocks !== undefined && completedBlocks - this.#lastBlocks < interval) return false;
    return this.spentTokens + this.#costOfOne <= options.maxExtraShare * generated;
  }

  asked(tokens: number, completedBlocks: number): void {
    this.#state = { kind: 'asked', atTokens: tokens };
    this.#lastBlocks = completedBlocks;
  }

  started(tokens: number): void {
    this.#state = { kind: 'running', atTokens: tokens };
  }

  /** The engine did not start it. The next try is not made before another block was filled. */
  declined(tokens: number, blockSize: number): void {
    if (this.#state.kind !== 'asked') return;
    this.#state = { kind: 'idle' };
    this.#lastBlocks = undefined;
    this.#retryAtTokens = tokens + blockSize;
  }

  /** The engine will not probe this request. */
  refused(): void {
    if (this.#state.kind === 'asked') this.#state = { kind: 'refused' };
  }

  ended(costTokens: number): void {
    this.#state = { kind: 'idle' };
    this.spentTokens += costTokens;
    if (costTokens > 0) this.#costOfOne = costTokens;
    this.finished += 1;
  }

  /** An answer that never came (a report was lost) must not end probing for good. */
  #isOverdue(tokens: number, options: ProbeOptions): boolean {
    if (this.#state.kind === 'idle' || this.#state.kind === 'refused') return false;
    return tokens - this.#state.atTokens > 4 * (options.everyTokens + options.maxTokens);
  }
}
