/** `marker` is the text between the two; it is never shown. */
export type Channel = 'reasoning' | 'content' | 'marker';

export interface TextPiece {
  channel: Channel;
  text: string;
}

/**
 * Finds stop strings in a text that comes in pieces. Text that may be the start of a stop string is held back until the
 * next pieces decide; that is at most one character less than the longest stop string. The earliest match counts. Of two
 * matches at the same place, the one listed first counts.
 */
export class StopStrings {
  readonly #stops: readonly string[];
  readonly #include: boolean;
  readonly #held: TextPiece[] = [];
  #text = '';
  #matched: string | undefined;

  /** @param include whether the stop string itself stays in the text */
  constructor(stops: readonly string[], include: boolean) {
    this.#stops = stops;
    this.#include = include;
  }

  /** The stop string that was found; no text is returned after it. */
  get matched(): string | undefined {
    return this.#matched;
  }

  /** Takes the next piece, and returns the text that cannot belong to a stop string any more. */
  push(piece: TextPiece): TextPiece[] {
    if (this.#matched !== undefined || piece.text === '') return [];
    if (this.#stops.length === 0) return [piece];
    this.#held.push(piece);
    this.#text += piece.text;
    let found: { at: number; stop: string } | undefined;
    for (const stop of this.#stops) {
      const at = this.#text.indexOf(stop);
      if (at !== -1 && (found === undefined || at < found.at)) found = { at, stop };
    }
    if (found !== undefined) {
      this.#matched = found.stop;
      return this.#release(found.at + (this.#include ? found.stop.length : 0));
    }
    return this.#release(this.#text.length - this.#undecided());
  }

  /** At the end of the text: what was held back. */
  flush(): TextPiece[] {
    return this.#matched === undefined ? this.#release(this.#text.length) : [];
  }

  /** Length of the longest suffix of the text that is the start of a stop string. */
  #undecided(): number {
    const longest = Math.max(...this.#stops.map((stop) => stop.length)) - 1;
    for (let length = Math.min(longest, this.#text.length); length > 0; length--) {
      const end = this.#text.slice(-length);
      if (this.#stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }

  #release(length: number): TextPiece[] {
    this.#text = this.#text.slice(length);
    const released: TextPiece[] = [];
    let left = length;
    while (left > 0) {
      const first = this.#held.shift()!;
      const text = first.text.slice(0, left);
      released.push({ channel: first.channel, text });
      left -= text.length;
      if (text.length < first.text.length) {
        this.#held.unshift({ channel: first.channel, text: first.text.slice(text.length) });
      }
    }
    return released;
  }
}
