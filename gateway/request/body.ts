import type { IncomingMessage } from 'node:http';
import { GatewayError } from '../errors.ts';
import type { BodyMemory } from './body-memory.ts';
import { HeldBody } from './held-body.ts';

/**
 * After an error the rest of the body is read and dropped for this long, so that the client gets to read the answer
 * instead of a reset; then the connection is cut.
 */
const LINGER_MS = 2_000;
const FIRST_BYTES = 64 * 1024;
/** What has come of a long body is copied so many times less often than by chunks; memory that was not written to costs nothing. */
const GROWTH = 32;
const EMPTY = Buffer.alloc(0);

/**
 * The whole body as it came; undefined when the client left before its end. Throws `body_too_large` as soon as the
 * length is known to be above `limit` bytes, announced or not, and `bodies_full` when `memory` has no room for it, which
 * counts what has come and not what was announced. `onWanted` is called when nothing speaks against it; with `signal` the
 * gateway ends it, which gives undefined too.
 */
export async function readBody(
  request: IncomingMessage,
  limit: number,
  memory: BodyMemory,
  { onWanted, signal }: { onWanted?: () => void; signal?: AbortSignal } = {},
): Promise<HeldBody | undefined> {
  announcedLength(request, limit);
  if (!memory.hasRoom(Number(request.headers['content-length'] ?? 0))) throw noRoom(request);
  if (signal?.aborted || request.destroyed) return undefined;
  onWanted?.();
  return await new Promise((resolve, reject) => {
    const announced = request.headers['content-length'];
    const gathered = new Gathering(announced === undefined ? limit : Number(announced));
    const settle = () => {
      request.off('data', onData);
      request.off('end', onEnd);
      request.off('close', onClose);
      signal?.removeEventListener('abort', onClose);
    };
    const give = () => {
      memory.give(gathered.length);
      gathered.drop();
    };
    const onData = (chunk: Buffer) => {
      const fits = gathered.length + chunk.length <= limit;
      if (fits && memory.hasRoom(chunk.length)) {
        memory.take(chunk.length);
        gathered.add(chunk);
        return;
      }
      settle();
      give();
      reject(fits ? noRoom(request) : tooLarge(request, limit));
    };
    const onEnd = () => {
      settle();
      resolve(new HeldBody(gathered.takeAll(), memory));
    };
    const onClose = () => {
      settle();
      give();
      resolve(undefined);
    };
    signal?.addEventListener('abort', onClose);
    request.on('data', onData);
    request.on('end', onEnd);
    request.on('close', onClose);
    request.on('error', ignore);
  });
}

/**
 * A reset while the body arrives is an 'error' too; 'close' follows and says all there is to say. Of the module: a
 * function made where a body is read would hold that body as long as the request lives.
 */
function ignore(): void {}

/** Of ECMAScript 2024. */
type Detachable = ArrayBuffer & { transfer(length: number): ArrayBuffer };

/** Nobody else has memory of this: it is what Node's parser makes for each read, and no slice of a pool. */
const isWhole = ({ byteOffset, length, buffer }: Buffer): boolean => byteOffset === 0 && buffer.byteLength === length;

/** Gives memory back at once: as garbage, megabytes of it make V8 collect again and again, and each time holds up everything. */
function giveBack({ buffer }: Buffer): void {
  (buffer as Detachable).transfer(0);
}

/** Bytes that come one after another, in one buffer. Takes the chunks over: they are not to be read afterwards. */
class Gathering {
  readonly #most: number;
  #buffer: Buffer = EMPTY;
  /** Nobody else has it. */
  #own = false;
  length = 0;

  constructor(most: number) {
    this.#most = most;
  }

  add(chunk: Buffer): void {
    const length = this.length + chunk.length;
    if (this.length === 0) {
      // Most bodies come in one piece, which needs no copy.
      this.#buffer = chunk;
      this.#own = isWhole(chunk);
    } else {
      if (length > this.#buffer.length) this.#grow(length);
      chunk.copy(this.#buffer, this.length);
      if (isWhole(chunk)) giveBack(chunk);
    }
    this.length = length;
  }

  /** Nothing of them stays here: this may be reached as long as the request lives. */
  takeAll(): Buffer {
    const all = this.#buffer.subarray(0, this.length);
    this.#own = false;
    this.#buffer = EMPTY;
    return all;
  }

  drop(): void {
    if (this.#own) giveBack(this.#buffer);
    this.#own = false;
    this.#buffer = EMPTY;
  }

  #grow(length: number): void {
    const room = Math.min(this.#most, Math.max(FIRST_BYTES, length * GROWTH));
    const larger = Buffer.allocUnsafeSlow(room);
    this.#buffer.copy(larger, 0, 0, this.length);
    this.drop();
    this.#buffer = larger;
    this.#own = true;
  }
}

/** Refuses by its head alone a body that is compressed (`unsupported_encoding`) or above `limit` bytes. */
export function announcedLength(request: IncomingMessage, limit: number): void {
  const encoding = request.headers['content-encoding'];
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') throw new GatewayError('unsupported_encoding');
  if (Number(request.headers['content-length'] ?? 0) > limit) throw tooLarge(request, limit);
}

/** The error for the client, whose body is read and dropped for a while from now on. */
export function tooLarge(request: IncomingMessage, limit: number): GatewayError {
  dropRest(request);
  return new GatewayError('body_too_large', { message: `the body is larger than ${limit} bytes` });
}

function noRoom(request: IncomingMessage): GatewayError {
  dropRest(request);
  return new GatewayError('bodies_full', { headers: { 'retry-after': '1' } });
}

export function dropRest(request: IncomingMessage): void {
  const { socket } = request;
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  timer.unref();
  request.once('close', () => clearTimeout(timer));
  request.once('end', () => clearTimeout(timer));
  request.resume();
}
