import type { UsageSource } from '../observe/outcomes.ts';
import type { RequestRecord } from '../observe/record.ts';
import type { Usage } from './tokens.ts';

/**
 * The tokens of one response, on its record, as they become known. Until a response says what it took, a stream counts as
 * its prompt's estimate and one token an event: a client that leaves before the end pays for what was made.
 */
export class Meter {
  readonly #record: RequestRecord;
  readonly #promptEstimate: number;
  source: UsageSource = 'none';

  constructor(record: RequestRecord, promptEstimate: number) {
    this.#record = record;
    this.#promptEstimate = promptEstimate;
  }

  /** Events of a stream of generated text. */
  sawEvents(count: number): void {
    if (this.source === 'reported') return;
    this.source = 'estimated';
    this.#record.tokens.input = this.#promptEstimate;
    this.#record.tokens.output += count;
  }

  /** Later ones hold what earlier ones left out: the messages API tells input first and output last. */
  reported(usage: Usage): void {
    const { tokens } = this.#record;
    if (this.source !== 'reported') Object.assign(tokens, { input: 0, output: 0 });
    this.source = 'reported';
    tokens.input = Math.max(tokens.input, usage.input);
    tokens.output = Math.max(tokens.output, usage.output);
  }

  /** The client left before the response began: what its prompt cost is lost too. */
  leftBefore(): void {
    if (this.source !== 'none') return;
    this.source = 'estimated';
    this.#record.tokens.input = this.#promptEstimate;
  }
}
