import type { ServerResponse } from 'node:http';
import type { Dispatcher } from 'undici';
import type { Backend } from '../fleet/backend.ts';
import { type ResponseHead, responseHead } from '../headers.ts';
import { HeldBody } from '../request/held-body.ts';
import type { UpstreamRequest } from '../request/upstream-request.ts';
import type { Downstream } from '../response/downstream.ts';

/** A whole answer that was kept back, because the request may be tried again. */
export interface HeldAnswer {
  status: number;
  head: ResponseHead;
  body: Buffer;
}

/** How an attempt on one backend ended. */
export type RelayEnd =
  | { kind: 'ended' }
  /** Nothing was sent to the client. */
  | { kind: 'held'; answer: HeldAnswer }
  /** Nothing of a response had come, or not all of one that was held; nothing was sent to the client. */
  | { kind: 'failed'; error: unknown }
  /** The response had begun. */
  | { kind: 'broken'; error: unknown }
  /** The signal was aborted, and with it the request to the backend. */
  | { kind: 'stopped' };

export interface RelayOptions {
  backend: Backend;
  sent: UpstreamRequest;
  response: ServerResponse;
  downstream: Downstream;
  signal: AbortSignal;
  /** Whether an answer with this status is to be kept back. */
  hold(status: number): boolean;
  /** The backend has begun to answer. */
  onStatus(status: number, head: ResponseHead): void;
  /** A piece of the answer as it passes. */
  onData(chunk: Buffer): void;
  /** The first byte for the client has come. */
  onFirstByte(): void;
}

/** Longer answers are sent on as they come, held or not: errors are short. */
const MAX_HELD_BYTES = 64 * 1024;

/**
 * Sends one request to one backend and its response on, as it comes. What the client has not read yet is not read from
 * the backend either: memory holds one socket buffer each way. Aborting `signal` closes the backend's connection at
 * once, in whatever state the request is. Never rejects.
 */
export function relay(options: RelayOptions): Promise<RelayEnd> {
  const { backend, sent, response, downstream, signal } = options;
  if (signal.aborted) return Promise.resolve({ kind: 'stopped' });
  return new Promise((resolve) => {
    let controller: Dispatcher.DispatchController | undefined;
    let held: { status: number; head: ResponseHead; chunks: Buffer[]; length: number } | undefined;
    let started = false;
    let firstByte = false;
    /** What has come in this turn of the event loop: a burst of events is passed on as one. */
    let gathered: Buffer | Buffer[] | undefined;
    let settled = false;

    const settle = (end: RelayEnd) => {
      if (settled) return;
      settled = true;
      signal.removeEventListener('abort', onAbort);
      response.off('drain', onDrain);
      resolve(end);
    };
    const onDrain = () => controller?.resume();
    const onAbort = () => {
      settle({ kind: 'stopped' });
      controller?.abort(new Error('stopped'));
    };
    const start = (status: number, head: ResponseHead) => {
      downstream.start(status, head);
      started = true;
      // Nothing is sent a second time from here on.
      if (sent.body instanceof HeldBody) sent.body.release();
    };
    const write = (chunk: Buffer): boolean => {
      markFirstByte();
      return downstream.write(chunk);
    };
    const gather = (chunk: Buffer) => {
      if (gathered === undefined) {
        gathered = chunk;
        process.nextTick(flush);
      } else if (Array.isArray(gathered)) gathered.push(chunk);
      else gathered = [gathered, chunk];
    };
    const flush = () => {
      if (gathered === undefined || settled) return;
      const bytes = Array.isArray(gathered) ? Buffer.concat(gathered) : gathered;
      gathered = undefined;
      options.onData(bytes);
      if (!write(bytes)) controller?.pause();
      if (!downstream.over) return;
      settle({ kind: 'ended' });
      controller?.abort(new Error('enough'));
    };
    const markFirstByte = () => {
      if (!firstByte) options.onFirstByte();
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
        const head = responseHead((next.rawHeaders ?? []) as readonly (Buffer | string)[]);
        options.onStatus(status, head);
        if (options.hold(status)) held = { status, head, chunks: [], length: 0 };
        else start(status, head);
      },
      onResponseData(next, chunk) {
        if (held === undefined) {
          gather(chunk);
          return;
        }
        options.onData(chunk);
        held.chunks.push(chunk);
        held.length += chunk.length;
        if (held.length <= MAX_HELD_BYTES) return;
        const { status, head, chunks } = held;
        held = undefined;
        start(status, head);
        if (!write(Buffer.concat(chunks))) next.pause();
      },
      onResponseEnd() {
        if (held === undefined) {
          flush();
          markFirstByte();
          settle({ kind: 'ended' });
          return;
        }
        const { status, head, chunks } = held;
        settle({ kind: 'held', answer: { status, head, body: Buffer.concat(chunks) } });
      },
      onResponseError(_next, error) {
        flush();
        settle(started ? { kind: 'broken', error } : { kind: 'failed', error });
      },
    };
    const { method, path } = sent;
    const plain = backend.xargs === 'refused';
    const length = sent.body instanceof HeldBody ? sent.body.lengthFor(plain) : sent.body?.length;
    // Without it an upload goes in chunks, as it does when the client did not say the length either.
    const framing = length === undefined ? [] : ['content-length', String(length)];
    const headers = [...backend.withCredential(sent.headers), ...framing];
    try {
      const body = sent.body?.open(plain) ?? null;
      backend.pool.dispatch(
        { method, path: backend.prefix + path, headers, body } as Dispatcher.DispatchOptions,
        handler,
      );
    } catch (error) {
      settle({ kind: 'failed', error });
    }
  });
}
