import { within } from '../../common/time.ts';
import type { Engine } from '../types.ts';
import { ApiError } from './errors.ts';
import { Generation, type GenerationOptions } from './generation.ts';
import type { EngineMetrics } from './metrics.ts';
import type { SamplingDefaults } from './sampling.ts';
import type { ChatTokenizer } from './tokenizer.ts';

/** What every handler needs. */
export interface Serving {
  readonly engine: Engine;
  readonly tokenizer: ChatTokenizer;
  readonly modelName: string;
  readonly defaults: SamplingDefaults;
  readonly promptTokensDetails: boolean;
  readonly metrics: EngineMetrics;
  readonly lifecycle: Lifecycle;
}

/** How long closing waits for readers that are slow. */
const CLOSE_MS = 1000;

/** Which requests run, and whether new ones are taken. */
export class Lifecycle {
  readonly #running = new Set<Generation>();
  readonly #idle: (() => void)[] = [];
  #failed = false;
  #draining = false;

  /** Why nothing new is taken; undefined while all is well. */
  get refusal(): ApiError | undefined {
    if (this.#failed) return new ApiError('unavailable', 'The engine has failed; this server must be restarted.');
    if (this.#draining) return new ApiError('unavailable', 'This server is shutting down.');
    return undefined;
  }

  /** Throws an `unavailable` ApiError when nothing new is taken, and what `Generation` throws. */
  start(options: GenerationOptions): Generation {
    if (this.refusal !== undefined) throw this.refusal;
    const generation = new Generation(options);
    this.#running.add(generation);
    return generation;
  }

  /** The answer of a generation has left, or its client has. */
  finish(generation: Generation): void {
    this.#running.delete(generation);
    if (this.#running.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** The engine is gone: what runs gets an error, what comes is refused. */
  failAll(): void {
    this.#failed = true;
    this.#abortAll('The engine has failed.');
  }

  /** Takes nothing new, and resolves when everything that runs has been answered. */
  drain(): Promise<void> {
    this.#draining = true;
    if (this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#idle.push(resolve);
    });
  }

  /** Takes nothing new, ends what runs with an error, and resolves when that has been sent: a second is enough. */
  async close(): Promise<void> {
    const drained = this.drain();
    this.#abortAll('This server is shutting down.');
    await within(drained, CLOSE_MS);
  }

  #abortAll(message: string): void {
    for (const generation of [...this.#running]) generation.fail(new ApiError('internal', message));
  }
}
