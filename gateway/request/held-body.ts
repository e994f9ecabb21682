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
  #plainEdits: readonly Edit[] | undefined;

  /** What it takes of `memory` it gives back when it is let go. */
  constructor(bytes: Buffer, memory?: Pick<BodyMemory, 'give'>) {
    this.#bytes = bytes;
    this.#memory = memory;
  }

  /** Of what is sent. */
  get length(): number {
    return this.lengthFor(false);
  }

  /** The same; `plain`: for a server that refuses what the gateway adds. */
  lengthFor(plain: boolean): number {
    const change = this.#editsFor(plain).reduce(
      (sum, { start, end, text }) => sum + Buffer.byteLength(text) - (end - start),
      0,
    );
    return change + (this.#bytes?.length ?? 0);
  }

  /** As it came; undefined: it was let go. */
  get bytes(): Buffer | undefined {
    return this.#bytes;
  }

  /** It has changes that a server may refuse. */
  get hasPlain(): boolean {
    return this.#plainEdits !== undefined;
  }

  /** It is sent with these changes from now on; with `plain` to servers that refuse the others. Gives itself. */
  edited(edits: readonly Edit[], plain?: readonly Edit[]): HeldBody {
    this.#edits = edits;
    this.#plainEdits = plain;
    return this;
  }

  #editsFor(plain: boolean): readonly Edit[] {
    return plain ? (this.#plainEdits ?? this.#edits) : this.#edits;
  }

  /** For one attempt; what has to be sent is all there until the reader has read it. */
  open(plain = false): Buffer | Iterable<Buffer> {
    const bytes = this.#bytes ?? EMPTY;
    if (bytes.length <= COPIED_BYTES) return splice(bytes, this.#editsFor(plain));
    return new Pieces(pieces(bytes, this.#editsFor(plain)));
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
