import type { Socket } from 'node:net';
import { buildConnector } from 'undici';

type Connector = buildConnector.connector;

/** All connections read into it, one after the other: what has come is copied before anything else happens. */
const SHARED = Buffer.allocUnsafe(64 * 1024);

/**
 * Connects as undici does, and gives it what has come without the queues of a Readable, whose bookkeeping costs more for each
 * event of a stream than to read it. undici takes a chunk in its listener of `readable`; what it leaves, because it waits for
 * a slow client, goes through the queue as always.
 */
export function directConnector(options: buildConnector.BuildOptions): Connector {
  const plain = buildConnector(options);
  return function connect(target, callback) {
    // TLS has queues of its own.
    if (target.protocol === 'https:') {
      plain(target, callback);
      return;
    }
    let reader: Reader | undefined;
    // Nothing is read before the callback below, which comes with the connection.
    const onread = { buffer: SHARED, callback: (count: number) => reader?.take(count) ?? true };
    buildConnector({ ...options, onread })(target, (...[error, socket]) => {
      if (error !== null) {
        callback(error, null);
        return;
      }
      reader = new Reader(socket);
      callback(null, socket);
    });
  };
}

class Reader {
  readonly #socket: Socket;
  #pending: Buffer | undefined;
  #offers = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    const read = socket.read.bind(socket) as Socket['read'];
    socket.read = (size) => {
      const chunk = this.#pending;
      this.#pending = undefined;
      if (chunk !== undefined) return chunk;
      return this.#offers && socket.readableLength === 0 ? null : read(size);
    };
  }

  /** So many bytes have come. False: no more is to be read for now. */
  take(count: number): boolean {
    // A small one is part of a pool, which a buffer of its own for each read is not.
    const chunk = Buffer.from(SHARED.subarray(0, count));
    if (this.#socket.readableLength > 0) return this.#socket.push(chunk);
    this.#pending = chunk;
    this.#offers = true;
    this.#socket.emit('readable');
    this.#offers = false;
    if (this.#pending === undefined) return true;
    this.#pending = undefined;
    return this.#socket.push(chunk);
  }
}
