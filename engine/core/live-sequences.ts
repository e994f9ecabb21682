import type { Sequence } from './sequence.ts';

/** All live sequences: requests, found by handle or id, and probes, found by handle. */
export class LiveSequences {
  readonly #byHandle = new Map<number, Sequence>();
  readonly #byId = new Map<string, Sequence>();
  #lastHandle = 0;

  /** A handle that this engine has never used before. */
  newHandle(): number {
    this.#lastHandle += 1;
    return this.#lastHandle;
  }

  add(sequence: Sequence): void {
    this.#byHandle.set(sequence.handle, sequence);
    if (sequence.fork === undefined) this.#byId.set(sequence.request.id, sequence);
  }

  delete(sequence: Sequence): void {
    this.#byHandle.delete(sequence.handle);
    if (sequence.fork === undefined) this.#byId.delete(sequence.request.id);
  }

  has(sequence: Sequence): boolean {
    return this.#byHandle.has(sequence.handle);
  }

  byHandle(handle: number): Sequence | undefined {
    return this.#byHandle.get(handle);
  }

  byId(id: string): Sequence | undefined {
    return this.#byId.get(id);
  }

  get all(): readonly Sequence[] {
    return [...this.#byHandle.values()];
  }
}
