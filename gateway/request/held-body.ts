import { type Edit, pieces, splice } from '../json/splice.ts';
import type { BodyMemory } from './body-memory.ts';

/** A shorter body is sent in one piece: to copy it costs less than a second write. */
const COPIED_BYTES = 16 * 1024;

/**
 * A request body in memory. It is held once, changes to it beside it, and let go when it cannot be needed any more: when
 * a response has begun, nothing is sent a second time, and a stream may take an hour.
 */
export class HeldBody {
  #bytes: Buffer | undefined;
  readonly #memory: Pick<BodyMemory, 'give'> | undefined;
  #edits: readonly Edit[] = [];
  #length: number;

  /** What it takes of `memory` it gives back when it is let go. */
  constructor(bytes: Buffer, memory?: Pick<BodyMemory, 'give'>) {
    this.#bytes = bytes;
    this.#memory = memory;
    this.#length = bytes.length;
  }

  /** Of what is sent. */
  get length(): number {
    return this.#length;
  }

  /** As it came; undefined: it was let go. */
  get bytes(): Buffer | undefined {
    return this.#bytes;
  }

  /** It is sent with these changes from now on. Gives itself. */
  edited(edits: readonly Edit[]): HeldBody {
    this.#edits = edits;
    this.#length = edits.reduce(
      (sum, { start, end, text }) => sum + Buffer.byteLength(text) - (end - start),
      this.#bytes?.length ?? 0,
    );
    return this;
  }

  /** For one attempt; what has to be sent is all there until the reader has read it. */
  open(): Buffer | Iterable<Buffer> {
    const bytes = this.#bytes ?? EMPTY;
    if (bytes.length <= COPIED_BYTES) return splice(bytes, this.#edits);
    return new Pieces(pieces(bytes, this.#edits));
  }

  /** May be called again. */
  release(): void {
    if (this.#bytes === undefined) return;
    this.#memory?.give(this.#bytes.length);
    this.#bytes = undefined;
  }
}

const EMPTY = Buffer.alloc(0);

/** Gives each piece once: who still holds this when it was read holds nothing. */
class Pieces implements Iterable<Buffer> {
  #pieces: readonly Buffer[];

  constructor(all: readonly Buffer[]) {
    this.#pieces = all;
  }

  *[Symbol.iterator](): Generator<Buffer> {
    const left = [...this.#pieces];
    this.#pieces = [];
    for (let piece = left.shift(); piece !== undefined; piece = left.shift()) yield piece;
  }
}
