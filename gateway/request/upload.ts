import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { type Edit, splice } from '../json/splice.ts';
import { announcedLength, dropRest, tooLarge } from './body.ts';
import { NO_HEAD, type UploadHead } from './upload-head.ts';

/** A request body that is sent on while it arrives: recordings are large, and nothing of them has to be known. */
export interface Upload {
  /** Some of it was handed out; what is gone cannot be sent again. */
  readonly begun: boolean;
  /** The model that its form names; undefined when it names none or was not looked at. */
  readonly model: string | undefined;
  /** Bytes of the body; undefined when the client did not say. */
  readonly length: number | undefined;
  /** The same upload with another model in its form, which must name one. */
  renamed(model: string): Upload;
  /** The body for one attempt on a backend. While nothing was handed out it may be opened again. */
  open(plain?: boolean): Readable;
}

/**
 * Throws `body_too_large` when the announced length is above `limit` bytes, and `unsupported_encoding`. An unannounced
 * length that turns out to be above it makes the opened body fail with `body_too_large`. Memory holds one socket buffer:
 * the client is read as fast as the backend takes it. `head` is what was read of it before.
 */
export function openUpload(request: IncomingMessage, limit: number, head: UploadHead = NO_HEAD): Upload {
  announcedLength(request, limit);
  const announced = request.headers['content-length'];
  let begun = false;
  // A reset while the body arrives is an 'error' too; 'close' follows, and the request's record sees it.
  request.on('error', () => {});
  const upload = (edits: readonly Edit[]): Upload => ({
    get begun() {
      return begun;
    },
    model: head.model?.value,
    length:
      announced === undefined
        ? undefined
        : edits.reduce((sum, { start, end, text }) => sum + Buffer.byteLength(text) - (end - start), Number(announced)),
    renamed: (model) => upload(head.model === undefined ? [] : [{ ...head.model, text: model }]),
    open() {
      return new UploadBody(request, limit, head, edits, () => {
        begun = true;
      });
    },
  });
  return upload([]);
}

class UploadBody extends Readable {
  readonly #request: IncomingMessage;
  readonly #limit: number;
  readonly #head: UploadHead;
  readonly #edits: readonly Edit[];
  readonly #onBegin: () => void;
  #length = 0;
  #attached = false;

  constructor(request: IncomingMessage, limit: number, head: UploadHead, edits: readonly Edit[], onBegin: () => void) {
    super();
    this.#request = request;
    this.#limit = limit;
    this.#head = head;
    this.#edits = edits;
    this.#onBegin = onBegin;
  }

  override _read(): void {
    if (!this.#attached) {
      this.#attached = true;
      this.#onBegin();
      const { bytes, ended } = this.#head;
      this.#request.on('data', this.#onData).on('end', this.#onEnd);
      if (bytes.length > 0) this.#take(bytes.length, splice(bytes, this.#edits));
      if (ended) this.#onEnd();
    }
    if (!this.#head.ended) this.#request.resume();
  }

  /** The client's connection stays: it is still to get an answer. What it sends meanwhile is read and dropped. */
  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#request.off('data', this.#onData).off('end', this.#onEnd);
    if (this.#attached) this.#request.resume();
    done(error);
  }

  /** `length` bytes came, and `bytes` are to be sent for them. */
  #take(length: number, bytes: Buffer): void {
    this.#length += length;
    if (this.#length > this.#limit) this.destroy(tooLarge(this.#request, this.#limit));
    else if (!this.push(bytes)) this.#request.pause();
  }

  readonly #onData = (chunk: Buffer): void => {
    try {
      this.#head.check(chunk);
    } catch (error) {
      dropRest(this.#request);
      this.destroy(error as Error);
      return;
    }
    this.#take(chunk.length, chunk);
  };

  readonly #onEnd = (): void => void this.push(null);
}
