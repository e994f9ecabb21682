import { randomUUID } from 'node:crypto';
import type { CacheOptions, Engine, GenerateEvent, Sampling, Submission } from '../types.ts';
import { Choice } from './choice.ts';
import { ApiError } from './errors.ts';
import type { LatencyMetrics } from './metrics.ts';
import type { SequenceText } from './sequence-text.ts';

/** One sequence to generate. */
export interface SequenceRequest {
  promptTokenIds: readonly number[];
  sampling: Sampling;
  text: SequenceText;
}

export interface GenerationOptions {
  engine: Engine;
  metrics: LatencyMetrics;
  /** Id of the response. Clients can choose it, so the engine's ids get a random suffix. */
  id: string;
  sequences: readonly SequenceRequest[];
  cache: CacheOptions;
  /** Called on the event loop when a choice has new output, or the request has failed. */
  onUpdate(): void;
}

/** All sequences of one request, from submission to end. */
export class Generation {
  readonly choices: readonly Choice[];
  readonly #options: GenerationOptions;
  readonly #submissions: Submission[] = [];
  readonly #startedAt = performance.now();
  #failure: ApiError | undefined;
  #aborted = false;
  #running: number;

  /** Submits all sequences. If the engine refuses one: throws an `invalid` ApiError and leaves nothing running. */
  constructor(options: GenerationOptions) {
    const { engine, id, sequences, cache } = options;
    this.#options = options;
    this.#running = sequences.length;
    this.choices = sequences.map(
      ({ promptTokenIds, sampling, text }, index) =>
        new Choice(
          index,
          promptTokenIds,
          text,
          sampling.ignoreEos ? undefined : engine.info.eosTokenId,
          sampling.stopTokenIds,
        ),
    );
    const unique = randomUUID().slice(0, 8);
    try {
      for (const [choiceIndex, { promptTokenIds, sampling }] of sequences.entries()) {
        const request = { id: `${id}-${choiceIndex}-${unique}`, choiceIndex, promptTokenIds, sampling, cache };
        this.#submissions.push(engine.submit(request, this.#receive(choiceIndex)));
      }
    } catch (error) {
      this.abort();
      if (error instanceof RangeError) throw new ApiError('invalid', error.message);
      throw error;
    }
  }

  /** Why the request failed; undefined: it did not. */
  get failure(): ApiError | undefined {
    return this.#failure;
  }

  /** Whether all sequences have ended, well or not. */
  get settled(): boolean {
    return this.#failure !== undefined || this.#running === 0;
  }

  /** Stops all sequences and reports nothing more. */
  abort(): void {
    this.#aborted = true;
    for (const submission of this.#submissions) submission.abort();
  }

  /** Stops all sequences and reports the failure. Does nothing when all have ended or were aborted. */
  fail(error: ApiError): void {
    if (this.#aborted || this.settled) return;
    this.#fail(error);
  }

  #fail(error: ApiError): void {
    this.#failure = error;
    this.abort();
    this.#options.onUpdate();
  }

  #receive(index: number): (event: GenerateEvent) => void {
    const choice = this.choices[index]!;
    const { metrics, onUpdate } = this.#options;
    let lastTokenAt: number | undefined;
    return (event) => {
      if (event.type === 'token') {
        const now = performance.now();
        if (lastTokenAt === undefined) metrics.observeFirstToken((now - this.#startedAt) / 1000);
        else metrics.observeNextToken((now - lastTokenAt) / 1000);
        lastTokenAt = now;
        if (this.#aborted || choice.stopped) return;
        choice.push(event.tokenId, event.logprob);
        if (choice.stopped) this.#submissions[index]?.abort();
        else onUpdate();
        return;
      }
      const reason = choice.stopped ? 'stop' : event.reason;
      metrics.observeEnd(reason, (performance.now() - this.#startedAt) / 1000);
      this.#running -= 1;
      if (this.#aborted) return;
      if (reason === 'abort') {
        this.#fail(new ApiError('internal', 'The engine dropped this request before it was finished.'));
        return;
      }
      choice.finish(reason, event.cachedTokens);
      onUpdate();
    };
  }
}
