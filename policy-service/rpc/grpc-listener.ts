import { type AddressInfo, createServer, type Socket } from 'node:net';
import type { Server, ServerCredentials } from '@grpc/grpc-js';

/** Time that calls and connections get to end by themselves, in milliseconds. */
const GRACE_MS = 1000;

export interface GrpcListener {
  /** The port in use, also when 0 was requested. */
  port: number;
  /** Stops accepting, ends calls, and resolves when no connection is left: after the grace period they are cut. */
  close(): Promise<void>;
}

/**
 * Listens for a gRPC server on its own sockets, because those that grpc-js opens cannot be cut: a peer that is frozen,
 * or that never closes its half of a connection, would keep the service from ending. Rejects with the address.
 */
export function listenGrpc(
  server: Server,
  credentials: ServerCredentials,
  host: string,
  port: number,
): Promise<GrpcListener> {
  const injector = server.createConnectionInjector(credentials);
  const sockets = new Set<Socket>();
  const listener = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    // A broken connection ends its calls; there is nothing else to do.
    socket.on('error', () => {});
    injector.injectConnection(socket);
  });

  const close = () =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        server.forceShutdown();
        for (const socket of sockets) socket.destroy();
      }, GRACE_MS);
      listener.close(() => {
        clearTimeout(timer);
        resolve();
      });
      server.tryShutdown(() => {});
    });

  return new Promise((resolve, reject) => {
    listener.once('error', (error: NodeJS.ErrnoException) => {
      const reason = error.code === 'EADDRINUSE' ? 'the port is in use' : error.message;
      server.forceShutdown();
      reject(new Error(`cannot listen on ${host}:${port}: ${reason}`));
    });
    listener.listen(port, host, () => resolve({ port: (listener.address() as AddressInfo).port, close }));
  });
}
