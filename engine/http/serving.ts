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

/** How long closing waits for slow readers. */
const CLOSE_MS = 1000;

/** The running requests, and whether new ones are accepted. */
export class Lifecycle {
  readonly #running = new Set<Generation>();
  readonly #idle: (() => void)[] = [];
  #failed = false;
  #draining = false;

  /** Why new requests are refused; undefined: they are accepted. */
  get refusal(): ApiError | undefined {
    if (this.#failed) return new ApiError('unavailable', 'The engine has failed; this server must be restarted.');
    if (this.#draining) return new ApiError('unavailable', 'This server is shutting down.');
    return undefined;
  }

  /** Throws an `unavailable` ApiError when new requests are refused, and what `Generation` throws. */
  start(options: GenerationOptions): Generation {
    if (this.refusal !== undefined) throw this.refusal;
    const generation = new Generation(options);
    this.#running.add(generation);
    return generation;
  }

  /** Call this when the response was sent or the client has left. */
  finish(generation: Generation): void {
    this.#running.delete(generation);
    if (this.#running.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** The engine has failed: running requests get an error, new ones are refused. */
  failAll(): void {
    this.#failed = true;
    this.#abortAll('The engine has failed.');
  }

  /** Refuses new requests, and resolves when all running ones have been answered. */
  drain(): Promise<void> {
    this.#draining = true;
    if (this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#idle.push(resolve);
    });
  }

  /** Refuses new requests, ends running ones with an error, and resolves when that was sent, or after a second. */
  async close(): Promise<void> {
    const drained = this.drain();
    this.#abortAll('This server is shutting down.');
    await within(drained, CLOSE_MS);
  }

  #abortAll(message: string): void {
    for (const generation of [...this.#running]) generation.fail(new ApiError('internal', message));
  }
}
