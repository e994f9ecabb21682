import type { IncomingMessage } from 'node:http';
import { GatewayError } from '../errors.ts';

/**
 * After an error the rest of the body is read and dropped for this long, so that the client gets to read the answer
 * instead of a reset; then the connection is cut.
 */
const LINGER_MS = 2_000;

/**
 * The whole body as it came; undefined when the client left before its end. Throws `body_too_large` as soon as the
 * length is known to be above `limit` bytes, announced or not.
 */
export async function readBody(request: IncomingMessage, limit: number): Promise<Buffer | undefined> {
  announcedLength(request, limit);
  return await new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const settle = () => {
      request.off('data', onData);
      request.off('end', onEnd);
      request.off('close', onClose);
    };
    const onData = (chunk: Buffer) => {
      length += chunk.length;
      if (length <= limit) {
        chunks.push(chunk);
        return;
      }
      settle();
      reject(tooLarge(request, limit));
    };
    const onEnd = () => {
      settle();
      resolve(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, length));
    };
    const onClose = () => {
      settle();
      resolve(undefined);
    };
    request.on('data', onData);
    request.on('end', onEnd);
    request.on('close', onClose);
    // A reset while the body arrives is an 'error' too; 'close' follows and says all there is to say.
    request.on('error', () => {});
  });
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

export function dropRest(request: IncomingMessage): void {
  const { socket } = request;
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  timer.unref();
  request.once('close', () => clearTimeout(timer));
  request.once('end', () => clearTimeout(timer));
  request.resume();
}
