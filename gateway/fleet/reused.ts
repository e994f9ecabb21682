import { subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import type { buildConnector } from 'undici';

/** Requests that were sent on each connection. */
const requests = new WeakMap<object, number>();
const onReused = new WeakSet<object>();

subscribe('undici:client:sendHeaders', (message) => {
  const { socket } = message as { socket: Socket };
  requests.set(socket, (requests.get(socket) ?? 0) + 1);
});

/** The connector, with a note on every error of a connection that had served other requests before. */
export function noteReuse(connect: buildConnector.connector): buildConnector.connector {
  return function connectNoting(options, callback) {
    connect(options, (...[error, socket]) => {
      if (error !== null) {
        callback(error, null);
        return;
      }
      socket.on('error', (thrown) => {
        if ((requests.get(socket) ?? 0) > 1) onReused.add(thrown);
      });
      callback(null, socket);
    });
  };
}

/** Whether a connection ended with this error that had served other requests before: the server may have closed it as idle. */
export function wasReused(error: unknown): boolean {
  return typeof error === 'object' && error !== null && onReused.has(error);
}
