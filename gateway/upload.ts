import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { announcedLength, tooLarge } from './body.ts';
import type { UploadHead } from './upload-head.ts';

const NO_HEAD: UploadHead = { chunks: [], ended: false, model: undefined };

/** A request body that is sent on while it arrives: recordings are large, and nothing of them has to be known. */
export interface Upload {
  /** Some of it was handed out; what is gone cannot be sent again. */
  readonly begun: boolean;
  /** The model that its form names; undefined when it names none or was not looked at. */
  readonly model: string | undefined;
  /** The body for one try on a backend. While nothing was handed out it may be opened again. */
  open(): Readable;
}

/**
 * Throws `body_too_large` when the announced length is above `limit` bytes, and `unsupported_encoding`. An unannounced
 * length that turns out to be above it makes the opened body fail with `body_too_large`. Memory holds one socket buffer:
 * the client is read as fast as the backend takes it. `head` is what was read of it before.
 */
export function openUpload(request: IncomingMessage, limit: number, head: UploadHead = NO_HEAD): Upload {
  announcedLength(request, limit);
  let begun = false;
  // A reset while the body arrives is an 'error' too; 'close' follows, and the request's record sees it.
  request.on('error', () => {});
  return {
    get begun() {
      return begun;
    },
    model: head.model,
    open() {
      return new UploadBody(request, limit, head, () => {
        begun = true;
      });
    },
  };
}

class UploadBody extends Readable {
  readonly #request: IncomingMessage;
  readonly #limit: number;
  readonly #head: UploadHead;
  readonly #onBegin: () => void;
  #length = 0;
  #attached = false;

  constructor(request: IncomingMessage, limit: number, head: UploadHead, onBegin: () => void) {
    super();
    this.#request = request;
    this.#limit = limit;
    this.#head = head;
    this.#onBegin = onBegin;
  }

  override _read(): void {
    if (!this.#attached) {
      this.#attached = true;
      this.#onBegin();
      const { chunks, ended } = this.#head;
      this.#request.on('data', this.#onData).on('end', this.#onEnd);
      for (const chunk of chunks) if (!this.destroyed) this.#onData(chunk);
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

  readonly #onData = (chunk: Buffer): void => {
    this.#length += chunk.length;
    if (this.#length > this.#limit) this.destroy(tooLarge(this.#request, this.#limit));
    else if (!this.push(chunk)) this.#request.pause();
  };

  readonly #onEnd = (): void => void this.push(null);
}
