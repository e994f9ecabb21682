import { type Server, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { type ErrorCode, GatewayError } from '../errors.ts';

const BY_CODE: Readonly<Record<string, ErrorCode>> = {
  HPE_HEADER_OVERFLOW: 'headers_too_large',
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 'body_too_large',
  ERR_HTTP_REQUEST_TIMEOUT: 'request_timeout',
};

/** Node keeps the response that is under way on its socket, and asks there too when nobody listens for `clientError`. */
type Answering = Socket & { _httpMessage?: { headersSent: boolean } | null };

/**
 * Answers what is not HTTP, in OpenAI's shape, and closes the connection: after a message whose framing is in doubt
 * nothing that follows on it can be trusted. A request that has begun sees its connection close, and is aborted.
 */
export function answerClientErrors(server: Server): void {
  server.on('clientError', (thrown: NodeJS.ErrnoException, socket: Answering) => {
    // Reset, or in the middle of an answer: nothing can be said any more.
    if (thrown.code === 'ECONNRESET' || !socket.writable || socket._httpMessage?.headersSent === true) {
      socket.destroy();
      return;
    }
    refuse(socket, new GatewayError(BY_CODE[thrown.code ?? ''] ?? 'malformed_http', { cause: thrown }));
  });
  // Without a listener Node cuts the connection; a tunnel is not offered either way, but the client is told.
  server.on('connect', (_request, socket: Socket) => refuse(socket, new GatewayError('not_found')));
}

function refuse(socket: Socket, error: GatewayError): void {
  const body = JSON.stringify(error.body());
  const head = [
    `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]}`,
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ];
  socket.on('error', () => {});
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}
