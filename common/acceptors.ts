import { createServer, type ListenOptions, type Server, type Socket } from 'node:net';

/**
 * libuv accepts one connection for each listening socket and turn of the event loop. A process that is busy has long turns:
 * with 10 ms of work in each, a single socket takes 100 connections a second, and the queue behind it overflows, which
 * clients notice seconds later. Of several sockets on one port (SO_REUSEPORT) each accepts one.
 */
export const canShareAPort = process.platform === 'linux';

/**
 * Claims an address for as long as what it gives is open: Linux refuses no socket that shares its port with others that do so too.
 * Rejects (EADDRINUSE) when another process has claimed it. The claim is a name in Linux's abstract namespace of sockets, of
 * the same network namespace as the address; nothing listens on the port itself before the program is ready.
 */
export async function claimAddress(host: string, port: number): Promise<() => void> {
  const claim = createServer((socket) => socket.destroy());
  await listening(claim, { path: `\0crystal-kv/${host}:${port}` });
  return () => void claim.close();
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

function listening(server: Server, where: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, resolve);
  });
}
