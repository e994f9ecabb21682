import type { ServerResponse } from 'node:http';
import type { Dispatcher } from 'undici';
import type { Backend } from './backends.ts';
import type { Downstream } from './downstream.ts';
import { responseHead } from './headers.ts';
import type { UpstreamRequest } from './upstream-request.ts';

/** How a try on one backend ended. */
export type RelayEnd =
  | { kind: 'ended' }
  /** Nothing of a response had come, so nothing was sent to the client. */
  | { kind: 'failed'; error: unknown }
  /** The response had begun. */
  | { kind: 'broken'; error: unknown }
  /** The signal was aborted, and with it the request to the backend. */
  | { kind: 'stopped' };

/**
 * Sends one request to one backend and its response on, as it comes. What the client has not read yet is not read from
 * the backend either: memory holds one socket buffer each way. Aborting `signal` closes the backend's connection at
 * once, in whatever state the request is. Never rejects.
 */
export function relay(
  backend: Backend,
  sent: UpstreamRequest,
  response: ServerResponse,
  downstream: Downstream,
  signal: AbortSignal,
  onFirstByte: () => void,
): Promise<RelayEnd> {
  if (signal.aborted) return Promise.resolve({ kind: 'stopped' });
  return new Promise((resolve) => {
    let controller: Dispatcher.DispatchController | undefined;
    let started = false;
    let firstByte = false;

    const settle = (end: RelayEnd) => {
      signal.removeEventListener('abort', onAbort);
      response.off('drain', onDrain);
      resolve(end);
    };
    const onDrain = () => controller?.resume();
    const onAbort = () => {
      settle({ kind: 'stopped' });
      controller?.abort(new Error('stopped'));
    };
    const markFirstByte = () => {
      if (!firstByte) onFirstByte();
      firstByte = true;
    };
    signal.addEventListener('abort', onAbort);
    response.on('drain', onDrain);

    const handler: Dispatcher.DispatchHandler = {
      onRequestStart(next) {
        controller = next;
        // Stopped while the connection was being made: nothing of the request is sent.
        if (signal.aborted) next.abort(new Error('stopped'));
      },
      onResponseStart(next, status) {
        if (status < 200) return;
        downstream.start(status, responseHead((next.rawHeaders ?? []) as readonly (Buffer | string)[]));
        started = true;
      },
      onResponseData(next, chunk) {
        markFirstByte();
        if (!downstream.write(chunk)) next.pause();
      },
      onResponseEnd() {
        markFirstByte();
        settle({ kind: 'ended' });
      },
      onResponseError(_next, error) {
        settle(started ? { kind: 'broken', error } : { kind: 'failed', error });
      },
    };
    try {
      backend.pool.dispatch({ ...sent, path: backend.prefix + sent.path }, handler);
    } catch (error) {
      settle({ kind: 'failed', error });
    }
  });
}
