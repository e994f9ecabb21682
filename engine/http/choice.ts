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

/** What a choice has produced since it was last asked. */
export interface Delta {
  pieces: readonly TextPiece[];
  tokens: readonly EmittedToken[];
  end: ChoiceEnd | undefined;
}

export interface TokenCounts {
  prompt: number;
  /** Prompt tokens whose cache was already there. */
  cached: number;
  completion: number;
  reasoning: number;
}

/** One of the sequences of a request: collects what the engine produces until somebody takes it. */
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
   * @param eosTokenId undefined: the sequence goes on after it
   * @param stopTokenIds end the sequence too; no end token adds text
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

  /** Whether a stop string was found: tokens after it do not count. */
  get stopped(): boolean {
    return this.#text.stoppedBy !== undefined;
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }

  /** Whether everything was taken, the end included. */
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
    // The text that was held back may complete a stop string.
    const stopString = this.#text.stoppedBy;
    const last = this.#lastTokenId;
    const stopToken = reason === 'stop' && last !== undefined && this.#stopTokenIds.has(last) ? last : null;
    this.#end = {
      finishReason: stopString === undefined ? reason : 'stop',
      stopReason: stopString ?? stopToken,
    };
  }

  /** Empties it. Undefined when nothing is new. */
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
