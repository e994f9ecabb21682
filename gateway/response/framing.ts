import type { ServerResponse } from 'node:http';

const CRLF = Buffer.from('\r\n');
/** Ends a body in chunks that has no trailers. */
const LAST_CHUNK = '0\r\n\r\n';
/** The length of a chunk in hexadecimal digits, and two line ends. */
const MAX_FRAME_BYTES = 12;

/** Writes a body whose length nobody knows. */
export interface BodyWriter {
  /** False: the client is slow, wait for 'drain'. */
  write(bytes: Buffer): boolean;
  end(last?: string): void;
}

/**
 * To be made when the head of `response` has been written; it is sent at once. Node sends a chunk as four buffers, and gathers what is written in
 * one turn of the event loop. A stream has a chunk for each token, gathered already: here it is one buffer, written at once.
 */
export function createBodyWriter(response: ServerResponse): BodyWriter {
  response.flushHeaders();
  // HTTP/1.0 has no chunks.
  if (!response.chunkedEncoding) {
    return { write: (bytes) => response.write(bytes), end: (last) => void response.end(last) };
  }
  response.chunkedEncoding = false;
  return {
    write(bytes) {
      const frame = framed(bytes);
      const { socket } = response;
      const isNext = socket?.writableLength === 0 && response.writableLength === 0;
      // The socket has room for all of it, so that nobody waits for a 'drain', which only `response` would tell.
      if (isNext && frame.length < socket.writableHighWaterMark && !response.destroyed) return socket.write(frame);
      return response.write(frame);
    },
    end(last = '') {
      const bytes = Buffer.from(last);
      response.end(bytes.length === 0 ? LAST_CHUNK : Buffer.concat([framed(bytes), Buffer.from(LAST_CHUNK)]));
    },
  };
}

function framed(bytes: Buffer): Buffer {
  const { length } = bytes;
  const frame = Buffer.allocUnsafe(length + MAX_FRAME_BYTES);
  const start = frame.write(`${length.toString(16)}\r\n`, 'latin1');
  bytes.copy(frame, start);
  const end = start + length;
  CRLF.copy(frame, end);
  return frame.subarray(0, end + CRLF.length);
}
