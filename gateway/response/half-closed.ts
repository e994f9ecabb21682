import type { IncomingMessage, Server, ServerResponse } from 'node:http';

/** Answers are mostly there before the first, and nobody sees one. */
const FIRST_MS = 250;
/** The first makes the other side say that it has gone; the second finds that it did. */
const SECOND_MS = 50;
const LATER_MS = 2_000;

/** A client that ends its side of a connection may wait for its answer on the other: by default Node cuts it off. */
export function allowHalfClosed(server: Server): void {
  (server as Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
}

/**
 * The end of a client's side means that it waits, or that it has left: TCP does not say which before something is sent.
 * While nothing of an answer was, interim responses are, which a client that waits passes over (RFC 9110, 15.2). One that
 * has left closes the connection over them. In HTTP/1.0, and in the middle of an answer, there is nothing of that kind: then
 * the end is taken for leaving.
 */
export function tellLeavers(request: IncomingMessage, response: ServerResponse): void {
  const { socket } = request;
  let timer: NodeJS.Timeout | undefined;
  const probe = (nextMs: number) => {
    if (response.headersSent) return;
    // Behind others on its connection it has no turn yet.
    if (response.socket !== null) response.writeContinue();
    timer = setTimeout(probe, nextMs, LATER_MS);
  };
  const onEnd = () => {
    if (response.writableEnded) return;
    if (request.httpVersion === '1.0' || response.headersSent) socket.destroy();
    else timer = setTimeout(probe, FIRST_MS, SECOND_MS);
  };
  socket.once('end', onEnd);
  response.once('close', () => {
    socket.off('end', onEnd);
    clearTimeout(timer);
  });
}
