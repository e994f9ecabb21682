/**
 * Finds one field of a form (multipart/form-data, RFC 7578) in its bytes as they pass. It takes less than parsers do, and
 * throws for the rest: what two readers could read in two ways must not be read at all.
 */

import { nameIn } from './form-headers.ts';

/** A field and where its value is. Offsets are bytes of the body, the end exclusive. */
export interface FormField {
  start: number;
  end: number;
  value: string;
}

/** The bytes are not such a form; `offset` is about where reading stopped. */
export class FormSyntaxError extends Error {
  override readonly name = 'FormSyntaxError';

  constructor(message: string, offset: number) {
    super(`${message} (at byte ${Math.max(0, offset)})`);
  }
}

export const MAX_HEAD_BYTES = 8 * 1024;
export const MAX_VALUE_BYTES = 1024;

const CRLF = Buffer.from('\r\n');
const HEAD_END = Buffer.from('\r\n\r\n');
const LAST = Buffer.from('--');

export class FieldFinder {
  readonly #field: string;
  readonly #delimiter: Buffer;
  #state: 'start' | 'delimited' | 'head' | 'value' | 'done' = 'start';
  #wanted = false;
  /** What has to be looked at again with what follows; the first delimiter may do without its line break. */
  #rest: Buffer = CRLF;
  /** Of its first byte in the body. */
  #offset = -CRLF.length;

  constructor(boundary: string, field: string) {
    this.#field = field;
    this.#delimiter = Buffer.from(`\r\n--${boundary}`, 'latin1');
  }

  /** The fields whose end is in `chunk`. Throws FormSyntaxError. */
  push(chunk: Buffer): FormField[] {
    const found: FormField[] = [];
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    for (let next: number | undefined = 0; next !== undefined; ) {
      at = next;
      next = this.#step(bytes, at, found);
    }
    const kept = this.#keepFrom(bytes, at);
    this.#rest = bytes.subarray(kept);
    this.#offset += kept;
    return found;
  }

  /** One part of the syntax; gives where the next begins, undefined: it is not all there. */
  #step(bytes: Buffer, at: number, found: FormField[]): number | undefined {
    const fail = (message: string) => new FormSyntaxError(message, this.#offset + at);
    switch (this.#state) {
      case 'start': {
        if (startsWith(bytes, HEAD_END, at)) return at + CRLF.length;
        if (bytes.length - at < this.#delimiter.length) return undefined;
        if (!startsWith(bytes, this.#delimiter, at)) throw fail('the form does not start with its boundary');
        this.#state = 'delimited';
        return at + this.#delimiter.length;
      }
      case 'delimited': {
        if (bytes.length - at < CRLF.length) return undefined;
        if (startsWith(bytes, CRLF, at)) this.#state = 'head';
        else if (startsWith(bytes, LAST, at)) this.#state = 'done';
        else throw fail('there is text after a boundary on the same line');
        return at + CRLF.length;
      }
      case 'head': {
        const end = bytes.indexOf(HEAD_END, at);
        if ((end === -1 ? bytes.length : end) - at > MAX_HEAD_BYTES) {
          throw fail(`the headers of a part have more than ${MAX_HEAD_BYTES} bytes`);
        }
        if (end === -1) return undefined;
        const name = nameIn(bytes.toString('latin1', at, end));
        if (name === undefined)
          throw fail('the headers of a part are ambiguous: exactly one form-data disposition with one name is needed');
        this.#wanted = name === this.#field;
        this.#state = 'value';
        return end + HEAD_END.length;
      }
      case 'value': {
        const end = bytes.indexOf(this.#delimiter, at);
        if (this.#wanted && (end === -1 ? bytes.length - this.#delimiter.length : end) - at > MAX_VALUE_BYTES) {
          throw fail(`the field ${this.#field} exceeds ${MAX_VALUE_BYTES} bytes`);
        }
        if (end === -1) return undefined;
        if (this.#wanted) {
          found.push({ start: this.#offset + at, end: this.#offset + end, value: bytes.toString('utf8', at, end) });
        }
        this.#state = 'delimited';
        return end + this.#delimiter.length;
      }
      case 'done':
        return undefined;
    }
  }

  /** Of a value that is passed over only what may be the beginning of a delimiter. */
  #keepFrom(bytes: Buffer, at: number): number {
    if (this.#state === 'done') return bytes.length;
    if (this.#state !== 'value' || this.#wanted) return at;
    return Math.max(at, bytes.length - this.#delimiter.length + 1);
  }
}

function startsWith(bytes: Buffer, prefix: Buffer, at: number): boolean {
  return bytes.subarray(at, at + prefix.length).equals(prefix);
}
