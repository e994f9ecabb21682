import type { IncomingMessage, ServerResponse } from 'node:http';
import type { GatewayError } from '../errors.ts';
import { type ResponseHead, withLength } from '../headers.ts';
import type { BrokenEnd } from '../observe/outcomes.ts';
import type { StreamForm } from '../routes.ts';
import { type Cutter, createCutter } from './cutter.ts';
import { errorEvent } from './error-event.ts';
import { createSentTail } from './sent-tail.ts';
import type { Shaper } from './shaper.ts';

/** A longer body that was to be changed as a whole is passed on as it is. */
const MAX_WHOLE_BYTES = 32 * 1024 * 1024;

/** The way back to the client. */
export interface Downstream {
  /** Status and headers, at once for an event stream. */
  start(status: number, head: ResponseHead): void;
  /** False: the client is slow, wait for 'drain'. */
  write(chunk: Buffer): boolean;
  /**
   * The backend's response has ended. `cut`: it was a stream of completions without `[DONE]`, and its framing cannot
   * tell an end from a broken connection; then nothing was ended, `fail` is to follow.
   */
  end(): 'ended' | 'cut';
  /** After `start`: tells the client that the rest does not come. Never a clean end, unless all had come before. */
  fail(error: GatewayError): BrokenEnd;
}

/** `own` are the gateway's headers, names and values in turn; without a `shaper` every byte stays. */
export function createDownstream(
  request: IncomingMessage,
  response: ServerResponse,
  form: StreamForm,
  own: readonly string[],
  shaper?: Shaper,
): Downstream {
  /** Of an event stream. */
  let cutter: Cutter | undefined;
  const tail = createSentTail();
  let framed = true;
  /** The body of a response that is changed as a whole, and its head, which waits for the length. */
  let whole: { status: number; head: ResponseHead; chunks: Buffer[]; length: number } | undefined;
  /** Something is owed by the shaper; the response may have ended meanwhile. */
  let waiting: 'open' | 'ended' | undefined;

  const reset = () => {
    // HTTP/1.0 takes a closed connection for the end of the body; a reset cannot be mistaken.
    // Below TLS there is no reset; without its closing message, the end of the connection is none of the body.
    if (request.httpVersion === '1.0' && !('encrypted' in request.socket)) request.socket.resetAndDestroy();
    else response.destroy();
    return 'reset' as const;
  };

  const send = (bytes: Buffer): boolean => {
    if (cutter !== undefined) tail.note(bytes);
    return bytes.length === 0 || response.write(bytes);
  };
  const pass = (chunk: Buffer): boolean => {
    const bytes = cutter === undefined ? chunk : cutter.push(chunk);
    const sent = send(shaper === undefined ? bytes : shaper.push(bytes));
    const owed = shaper?.owed();
    if (owed === undefined) return sent;
    waiting = 'open';
    void owed.then((late) => {
      const ended = waiting === 'ended';
      waiting = undefined;
      if (response.destroyed) return;
      send(late);
      if (ended) finish();
      // What was held up by this goes on as after a slow client.
      else if (!response.writableNeedDrain) response.emit('drain');
    });
    return false;
  };
  /** Of an event that never ended. */
  const sendLast = (rest: Buffer) => {
    if (rest.length > 0) send(shaper === undefined ? rest : shaper.last(rest));
  };
  const finish = () => {
    if (cutter !== undefined) sendLast(cutter.rest());
    response.end();
  };
  const finishWhole = ({ status, head, chunks }: NonNullable<typeof whole>, change: Shaper) => {
    const answer = (body: Buffer) => {
      if (response.destroyed) return;
      response.writeHead(status, [...withLength(head.headers, body.length), ...own]).end(body);
    };
    const body = change.finish(Buffer.concat(chunks));
    if (Buffer.isBuffer(body)) answer(body);
    else void body.then(answer);
  };

  return {
    start(status, head) {
      framed = head.framed;
      const mode = shaper?.start(status, head) ?? 'pass';
      if (mode === 'whole') {
        whole = { status, head, chunks: [], length: 0 };
        return;
      }
      response.writeHead(status, [...head.headers, ...own]);
      if (head.eventStream) {
        cutter = createCutter(mode === 'events' ? 'event' : 'line');
        response.flushHeaders();
      }
    },
    write(chunk) {
      if (whole === undefined) return pass(chunk);
      whole.chunks.push(chunk);
      whole.length += chunk.length;
      if (whole.length <= MAX_WHOLE_BYTES) return true;
      const { status, head, chunks } = whole;
      whole = undefined;
      response.writeHead(status, [...head.headers, ...own]);
      return send(Buffer.concat(chunks));
    },
    end() {
      if (whole !== undefined && shaper !== undefined) {
        finishWhole(whole, shaper);
        return 'ended';
      }
      if (waiting !== undefined) {
        waiting = 'ended';
        return 'ended';
      }
      if (cutter !== undefined && !framed && form === 'chat') {
        sendLast(cutter.lines());
        if (!tail.done()) return 'cut';
      }
      finish();
      return 'ended';
    },
    fail(error) {
      if (whole !== undefined) {
        whole = undefined;
        const body = Buffer.from(JSON.stringify(error.bodyFor(form)));
        response.writeHead(error.status, [
          'content-type',
          'application/json',
          'content-length',
          String(body.length),
          ...own,
        ]);
        response.end(body);
        return 'told';
      }
      if (cutter !== undefined) sendLast(cutter.lines());
      if (cutter !== undefined && tail.done()) {
        response.end();
        return 'complete';
      }
      const bridge = cutter === undefined ? undefined : tail.bridge();
      // A client that does not read would not read the event either.
      if (bridge === undefined || response.writableNeedDrain) return reset();
      response.end(`${bridge}${errorEvent(form, error)}`);
      return 'told';
    },
  };
}
