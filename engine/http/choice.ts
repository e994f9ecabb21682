import type { TokenLogprob } from '../types.ts';
import type { SequenceText } from './sequence-text.ts';
import type { TextPiece } from './stop-strings.ts';

export interface EmittedToken {
  id: number;
  logprob: TokenLogprob | undefined;
  /** Where the token's text begins in the text of its choice, in characters. */
  textOffset: number;
}

export interface ChoiceEnd {
  finishReason: 'stop' | 'length';
  /** The stop string or stop token that ended it; null for the end-of-sequence token and for `length`. */
  stopReason: string | number | null;
}

/** The output of a choice since the last time it was taken. */
export interface Delta {
  pieces: readonly TextPiece[];
  tokens: readonly EmittedToken[];
  end: ChoiceEnd | undefined;
}

export interface TokenCounts {
  prompt: number;
  /** Prompt tokens that were already in the cache. */
  cached: number;
  completion: number;
  reasoning: number;
}

/** One sequence of a request. It collects the engine's output until it is taken. */
export class Choice {
  readonly index: number;
  readonly promptTokenIds: readonly number[];
  readonly #text: SequenceText;
  readonly #endTokenIds: ReadonlySet<number>;
  readonly #stopTokenIds: ReadonlySet<number>;
  #pieces: TextPiece[] = [];
  #tokens: EmittedToken[] = [];
  #end: ChoiceEnd | undefined;
  #endTaken = false;
  #lastTokenId: number | undefined;
  #completionTokens = 0;
  #cachedTokens = 0;

  /**
   * @param eosTokenId undefined: the sequence goes on after the end-of-sequence token
   * @param stopTokenIds they end the sequence too; a token that ends it adds no text
   */
  constructor(
    index: number,
    promptTokenIds: readonly number[],
    text: SequenceText,
    eosTokenId: number | undefined,
    stopTokenIds: readonly number[],
  ) {
    this.index = index;
    this.promptTokenIds = promptTokenIds;
    this.#text = text;
    this.#stopTokenIds = new Set(stopTokenIds.filter((id) => id !== eosTokenId));
    this.#endTokenIds = new Set(eosTokenId === undefined ? stopTokenIds : [...stopTokenIds, eosTokenId]);
  }

  /** Whether a stop string was found. Later tokens are ignored. */
  get stopped(): boolean {
    return this.#text.stoppedBy !== undefined;
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }

  /** Whether all output was taken, including the end. */
  get exhausted(): boolean {
    return this.#endTaken;
  }

  get counts(): TokenCounts {
    return {
      prompt: this.promptTokenIds.length,
      cached: this.#cachedTokens,
      completion: this.#completionTokens,
      reasoning: this.#text.reasoningTokens,
    };
  }

  push(tokenId: number, logprob: TokenLogprob | undefined): void {
    if (this.stopped) return;
    this.#tokens.push({ id: tokenId, logprob, textOffset: this.#text.length });
    this.#completionTokens += 1;
    this.#lastTokenId = tokenId;
    if (!this.#endTokenIds.has(tokenId)) this.#pieces.push(...this.#text.push(tokenId));
  }

  finish(reason: 'stop' | 'length', cachedTokens: number): void {
    this.#cachedTokens = cachedTokens;
    this.#pieces.push(...this.#text.flush());
    // Text that was held back may complete a stop string.
    const stopString = this.#text.stoppedBy;
    const last = this.#lastTokenId;
    const stopToken = reason === 'stop' && last !== undefined && this.#stopTokenIds.has(last) ? last : null;
    this.#end = {
      finishReason: stopString === undefined ? reason : 'stop',
      stopReason: stopString ?? stopToken,
    };
  }

  /** Takes the new output; undefined when there is none. */
  take(): Delta | undefined {
    const end = this.#endTaken ? undefined : this.#end;
    if (this.#pieces.length === 0 && this.#tokens.length === 0 && end === undefined) return undefined;
    const delta = { pieces: this.#pieces, tokens: this.#tokens, end };
    this.#pieces = [];
    this.#tokens = [];
    this.#endTaken = end !== undefined || this.#endTaken;
    return delta;
  }
}

/** The text of one channel. */
export function textOf(delta: Delta, channel: TextPiece['channel']): string {
  return delta.pieces.map((piece) => (piece.channel === channel ? piece.text : '')).join('');
}
