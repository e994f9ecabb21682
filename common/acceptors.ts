import { createServer, type Server, type Socket } from 'node:net';

/**
 * libuv accepts one connection for each listening socket and turn of the event loop. A process that is busy has long turns:
 * with 10 ms of work in each, a single socket takes 100 connections a second, and the queue behind it overflows, which
 * clients notice seconds later. Of several sockets on one port (SO_REUSEPORT) each accepts one.
 */
export const canShareAPort = process.platform === 'linux';

/** Rejects when another program listens there: sockets that share their port would not notice. */
export async function checkFree(host: string, port: number): Promise<void> {
  const probe = createServer();
  await listening(probe, { host, port });
  await new Promise<void>((resolve) => probe.close(() => resolve()));
}

/** Opens `count` more sockets where `server` listens, with `reusePort`, and gives it what they accept. Gives what closes them. */
export async function addAcceptors(
  server: Server,
  host: string,
  port: number,
  count: number,
): Promise<() => Promise<void>> {
  // Node sets these on every server, and types name neither.
  const { allowHalfOpen, noDelay } = server as Server & { allowHalfOpen: boolean; noDelay: boolean };
  const take = (socket: Socket) => void server.emit('connection', socket);
  const acceptors = Array.from({ length: count }, () => createServer({ allowHalfOpen, noDelay }, take));
  const close = async () => {
    await Promise.all(acceptors.map((acceptor) => new Promise<void>((resolve) => acceptor.close(() => resolve()))));
  };
  try {
    await Promise.all(acceptors.map((acceptor) => listening(acceptor, { host, port, reusePort: true })));
  } catch (error) {
    await close();
    throw error;
  }
  return close;
}

function listening(server: Server, where: { host: string; port: number; reusePort?: boolean }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, resolve);
  });
}
