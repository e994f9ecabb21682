import type { UsageSource } from '../observe/outcomes.ts';
import type { RequestRecord } from '../observe/record.ts';
import { plainUsage, RunningTokens } from './running-tokens.ts';
import { BYTES_PER_TOKEN, createTextEstimate } from './text-estimate.ts';
import type { Usage } from './tokens.ts';

/** What a request may have cost whose response does not say it. */
export interface Estimates {
  /** Tokens of its prompt. */
  prompt: number;
  /** Its response holds generated text. */
  generates: boolean;
  /** It has several prompts, of which each choice tells only its own. */
  batch: boolean;
}

/**
 * The tokens of one response. What it says it took counts: at its end, else so far, by choice. Where it says nothing they
 * are estimated, its prompt by the bytes of the request and its output by its own: a client that leaves before the end, or
 * whose response cannot be read, pays for what was made.
 */
export class Meter {
  readonly #record: RequestRecord;
  readonly #estimates: Estimates;
  readonly #text = createTextEstimate();
  /** What each choice said it has so far. */
  readonly #soFar = new Map<number, RunningTokens>();
  #unread = 0;
  #began = false;
  #final = false;
  source: UsageSource = 'none';

  constructor(record: RequestRecord, estimates: Estimates) {
    this.#record = record;
    this.#estimates = estimates;
  }

  /** A good response has begun. */
  began(): void {
    this.#began = true;
  }

  /** Whole events of a stream. */
  sawEvents(whole: Buffer): void {
    this.#text.saw(whole);
  }

  /** Bytes of a response that is no event stream. */
  sawBytes(count: number): void {
    this.#unread += count;
  }

  /** What a choice of a stream took so far. */
  saidSoFar(choice: number, usage: Usage): void {
    const running = this.#soFar.get(choice);
    if (running === undefined) this.#soFar.set(choice, new RunningTokens(usage));
    else running.said(usage);
  }

  /**
   * The same, as it stands in an event: `event` from `start` to `end` is the member with its usage, of plain numbers. False:
   * it does not tell the tokens.
   */
  showedSoFar(choice: number, event: Buffer, start: number, end: number): boolean {
    const running = this.#soFar.get(choice);
    if (running !== undefined) {
      running.showed(event, start, end);
      return true;
    }
    const usage = plainUsage(event.toString('latin1', start, end));
    if (usage !== undefined) this.#soFar.set(choice, new RunningTokens(usage));
    return usage !== undefined;
  }

  /** Later ones hold what earlier ones left out: the messages API tells input first and output last. */
  reported(usage: Usage, isFinal: boolean): void {
    const { tokens } = this.#record;
    this.source = 'reported';
    this.#final ||= isFinal;
    tokens.input = Math.max(tokens.input, usage.input);
    tokens.output = Math.max(tokens.output, usage.output);
  }

  /** Puts what is known on the record. `left`: the client did so before the response began; its prompt was computed. */
  close(left: boolean): void {
    const { tokens } = this.#record;
    const { prompt, generates, batch } = this.#estimates;
    if (this.source === 'reported') {
      if (!this.#final && generates) tokens.output = Math.max(tokens.output, this.#outputEstimate());
      return;
    }
    if (!this.#began && !left) return;
    const said = [...this.#soFar.values()].map((running) => running.usage());
    this.source = said.length > 0 ? 'reported' : 'estimated';
    const prompts = said.map(({ input }) => input);
    tokens.input = said.length === 0 || batch ? Math.max(prompt, ...prompts) : Math.max(...prompts);
    if (said.length > 0) tokens.output = said.reduce((sum, { output }) => sum + output, 0);
    else if (generates) tokens.output = this.#outputEstimate();
    if (tokens.input + tokens.output === 0) this.source = 'none';
  }

  #outputEstimate(): number {
    return this.#text.tokens() + Math.ceil(this.#unread / BYTES_PER_TOKEN);
  }
}
