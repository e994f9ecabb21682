import type { Usage } from './tokens.ts';

/** A longer one is read at once. */
const MAX_KEPT_BYTES = 256;

/** The tokens in the text of a usage of plain numbers; undefined when it does not tell both. */
export function plainUsage(text: string): Usage | undefined {
  const input = /"prompt_tokens":(\d{1,15})[,}]/.exec(text)?.[1];
  const output = /"completion_tokens":(\d{1,15})[,}]/.exec(text)?.[1];
  return input === undefined || output === undefined ? undefined : { input: Number(input), output: Number(output) };
}

/** What one choice of a stream said last. An event says it for each token, so that its text is kept and read in the end. */
export class RunningTokens {
  #usage: Usage;
  #text: Buffer | undefined;
  #length = 0;

  constructor(usage: Usage) {
    this.#usage = usage;
  }

  said(usage: Usage): void {
    this.#usage = usage;
    this.#length = 0;
  }

  /** `event` from `start` to `end` is a usage of plain numbers. */
  showed(event: Buffer, start: number, end: number): void {
    if (end - start > MAX_KEPT_BYTES) {
      this.said(plainUsage(event.toString('latin1', start, end)) ?? this.#usage);
      return;
    }
    this.#text ??= Buffer.allocUnsafe(MAX_KEPT_BYTES);
    this.#length = event.copy(this.#text, 0, start, end);
  }

  usage(): Usage {
    if (this.#text !== undefined && this.#length > 0) {
      this.said(plainUsage(this.#text.toString('latin1', 0, this.#length)) ?? this.#usage);
    }
    return this.#usage;
  }
}
