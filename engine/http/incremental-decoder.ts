/** Turns token ids into text. */
export type Decode = (ids: readonly number[]) => string;

/** How a text ends that stops inside a UTF-8 character. */
const INCOMPLETE = '\uFFFD';

/**
 * Decodes a growing sequence piece by piece; the joined pieces equal the decoded whole. Each step decodes only the last
 * few tokens, because what a token adds depends on those before it (a space between words, the rest of a character).
 */
export class IncrementalDecoder {
  readonly #decode: Decode;
  /** The tokens that the next piece depends on; the text of those before `#read` was already returned. */
  #window: number[];
  #read: number;

  /** @param before tokens that precede the text, so that its first piece joins onto theirs */
  constructor(decode: Decode, before: readonly number[] = []) {
    this.#decode = decode;
    this.#window = [...before];
    this.#read = before.length;
  }

  /** The text that this token adds; empty while it ends inside a character. */
  push(tokenId: number): string {
    this.#window.push(tokenId);
    const text = this.#pending();
    if (text === '' || text.endsWith(INCOMPLETE)) return '';
    this.#advance();
    return text;
  }

  /** At the end of the sequence: the text that was held back. */
  flush(): string {
    const text = this.#pending();
    this.#advance();
    return text;
  }

  #pending(): string {
    const known = this.#decode(this.#window.slice(0, this.#read));
    return this.#decode(this.#window).slice(known.length);
  }

  #advance(): void {
    this.#window = this.#window.slice(this.#read);
    this.#read = this.#window.length;
  }
}
