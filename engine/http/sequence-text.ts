import type { IncrementalDecoder } from './incremental-decoder.ts';
import { type Channel, StopStrings, type TextPiece } from './stop-strings.ts';
import type { ChatTokenizer } from './tokenizer.ts';

export interface TextOptions {
  tokenizer: ChatTokenizer;
  /** Apart: the think tokens separate `reasoning` from `content`. Together: everything is content, unchanged. */
  thinking: 'apart' | 'together';
  promptTokenIds: readonly number[];
  stop: readonly string[];
  includeStop: boolean;
  skipSpecialTokens: boolean;
}

/** The text of one generated sequence: decoded, separated at the think tokens, cut at stop strings. */
export class SequenceText {
  readonly #options: TextOptions;
  readonly #stops: StopStrings;
  #decoder: IncrementalDecoder;
  #channel: Channel;
  #started = false;
  #length = 0;
  #reasoningTokens = 0;

  constructor(options: TextOptions) {
    const { tokenizer, thinking, promptTokenIds, skipSpecialTokens } = options;
    this.#options = options;
    this.#stops = new StopStrings(options.stop, options.includeStop);
    this.#channel = thinking === 'apart' && isThinking(tokenizer, promptTokenIds) ? 'reasoning' : 'content';
    // A completion continues its prompt, so that its text can be appended to the prompt's.
    const before = thinking === 'together' ? promptTokenIds.slice(-CONTEXT_TOKENS) : [];
    this.#decoder = tokenizer.createDecoder(skipSpecialTokens, before);
  }

  /** The stop string that ended the text. */
  get stoppedBy(): string | undefined {
    return this.#stops.matched;
  }

  /** Characters so far, including those that are held back. */
  get length(): number {
    return this.#length;
  }

  get reasoningTokens(): number {
    return this.#reasoningTokens;
  }

  /** The text that can be shown after this token. */
  push(tokenId: number): TextPiece[] {
    const { tokenizer, thinking } = this.#options;
    if (thinking === 'apart') {
      if (this.#channel === 'reasoning' && tokenId === tokenizer.thinkEndId) {
        return this.#turn('content', tokenizer.thinkEnd);
      }
      if (this.#channel === 'content' && !this.#started && tokenId === tokenizer.thinkStartId) {
        return this.#turn('reasoning', tokenizer.thinkStart);
      }
    }
    this.#started = true;
    if (this.#channel === 'reasoning') this.#reasoningTokens += 1;
    return this.#emit(this.#channel, this.#decoder.push(tokenId));
  }

  /** At the end of the sequence: the text that was held back. */
  flush(): TextPiece[] {
    return [...this.#emit(this.#channel, this.#decoder.flush()), ...this.#stops.flush()];
  }

  #turn(channel: Channel, marker: string): TextPiece[] {
    const rest = this.#emit(this.#channel, this.#decoder.flush());
    this.#channel = channel;
    this.#started = true;
    this.#decoder = this.#options.tokenizer.createDecoder(this.#options.skipSpecialTokens);
    return [...rest, ...this.#emit('marker', marker)];
  }

  #emit(channel: Channel, text: string): TextPiece[] {
    this.#length += text.length;
    return this.#stops.push({ channel, text });
  }
}

/** Enough tokens for a decoder to join the next one to the text. */
const CONTEXT_TOKENS = 6;

/** Whether a prompt ends inside a chain of thought: the chat template may open it. */
function isThinking(tokenizer: ChatTokenizer, prompt: readonly number[]): boolean {
  if (tokenizer.thinkStartId === undefined) return false;
  const start = prompt.lastIndexOf(tokenizer.thinkStartId);
  const end = tokenizer.thinkEndId === undefined ? -1 : prompt.lastIndexOf(tokenizer.thinkEndId);
  return start > end;
}
