import type { IncomingMessage, ServerResponse } from 'node:http';
import type { GatewayError } from '../errors.ts';
import { type ResponseHead, withLength } from '../headers.ts';
import type { BrokenEnd } from '../observe/outcomes.ts';
import type { StreamForm } from '../routes.ts';
import type { ThinkingGuard } from '../thinking/guard.ts';
import { type Cutter, createCutter } from './cutter.ts';
import { errorEvent } from './error-event.ts';
import { type BodyWriter, createBodyWriter } from './framing.ts';
import { lateAnswer } from './late-answer.ts';
import { createSentTail } from './sent-tail.ts';
import type { Shaper } from './shaper.ts';

/** A longer body that was to be changed as a whole is passed on as it is. */
const MAX_WHOLE_BYTES = 32 * 1024 * 1024;

const PING = Buffer.from(': ping\n\n');
/** What is in the last event of a stream, beside those of completions, which have `[DONE]`. */
const LAST: Readonly<Record<StreamForm, readonly Buffer[]>> = {
  chat: [],
  responses: ['response.completed', 'response.failed', 'response.incomplete', 'event: error'].map((text) =>
    Buffer.from(text),
  ),
  messages: ['message_stop', 'event: error'].map((text) => Buffer.from(text)),
};
const PING_HEAD = [
  'content-type',
  'text/event-stream; charset=utf-8',
  'cache-control',
  'no-cache',
  'x-accel-buffering',
  'no',
];

/** The way back to the client. */
export interface Downstream {
  /**
   * A comment to a client of a stream of which nothing has come; the first sends status and headers. An answer that turns out
   * to be no stream is then told as an event.
   */
  ping(): void;
  /** It has ended before the backend's response did, of which nothing more is wanted. */
  readonly over: boolean;
  /** The status of an error that was told as an event because of a ping. */
  readonly toldStatus: number | undefined;
  /** Status and headers, at once for an event stream. */
  start(status: number, head: ResponseHead): void;
  /** False: the client is slow, wait for 'drain'. */
  write(chunk: Buffer): boolean;
  /**
   * The backend's response has ended. `cut`: it was a stream without the last event of its API, and its framing cannot
   * tell an end from a broken connection; then nothing was ended, `fail` is to follow.
   */
  end(): 'ended' | 'cut';
  /** After `start`: tells the client that the rest does not come. Never a clean end, unless all had come before. */
  fail(error: GatewayError): BrokenEnd;
}

/** `own` are the gateway's headers, names and values in turn; without a `shaper` every byte stays, and a `guard` ends streams. */
export function createDownstream(
  request: IncomingMessage,
  response: ServerResponse,
  form: StreamForm,
  own: readonly string[],
  shaper?: Shaper,
  guard?: ThinkingGuard,
): Downstream {
  /** Of an event stream. */
  let cutter: Cutter | undefined;
  let writer: BodyWriter = response;
  const tail = createSentTail();
  let framed = true;
  /** Of a stream that is not framed: its last event was sent. */
  let complete = false;
  let mode: ReturnType<Shaper['start']> = 'pass';
  /** The body of a response that is changed as a whole, and its head, which waits for the length. */
  let whole: { status: number; head: ResponseHead; chunks: Buffer[]; length: number } | undefined;
  /** A ping has sent status and headers. */
  let early = false;
  let toldStatus: number | undefined;
  let over = false;
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
    if (!framed && !complete) complete = LAST[form].some((needle) => bytes.includes(needle));
    return bytes.length === 0 || writer.write(bytes);
  };
  const pass = (chunk: Buffer): boolean => {
    const cut = cutter === undefined ? chunk : cutter.push(chunk);
    const { bytes, end } = cutter === undefined || guard === undefined ? { bytes: cut } : guard.see(cut);
    if (end !== undefined) {
      send(shaper === undefined ? bytes : shaper.push(bytes));
      writer.end(end);
      over = true;
      return true;
    }
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
    writer.end();
  };
  const finishWhole = ({ status, head, chunks }: NonNullable<typeof whole>) => {
    const answer = (body: Buffer) => {
      if (response.destroyed) return;
      if (early) writer.end(lateAnswer(form, status, body));
      else response.writeHead(status, [...withLength(head.headers, body.length), ...own]).end(body);
    };
    if (early && status >= 300) toldStatus = status;
    const body =
      mode === 'whole' && shaper !== undefined ? shaper.finish(Buffer.concat(chunks)) : Buffer.concat(chunks);
    if (Buffer.isBuffer(body)) answer(body);
    else void body.then(answer);
  };

  return {
    ping() {
      if (whole !== undefined || response.writableEnded || response.writableNeedDrain) return;
      if (!response.headersSent) {
        early = true;
        response.writeHead(200, [...PING_HEAD, ...own]);
        writer = createBodyWriter(response);
        cutter = createCutter('line');
      }
      if (cutter !== undefined) send(PING);
    },
    get over() {
      return over;
    },
    get toldStatus() {
      return toldStatus;
    },
    start(status, head) {
      framed = head.framed;
      mode = shaper?.start(status, head) ?? 'pass';
      if (mode === 'whole' || (early && (status >= 300 || !head.eventStream))) {
        cutter = undefined;
        whole = { status, head, chunks: [], length: 0 };
        return;
      }
      if (!early) response.writeHead(status, [...head.headers, ...own]);
      if (head.eventStream) {
        if (!early) writer = createBodyWriter(response);
        cutter = createCutter(mode === 'events' || guard !== undefined ? 'event' : 'line');
      }
    },
    write(chunk) {
      if (whole === undefined) return pass(chunk);
      if (mode !== 'whole') shaper?.push(chunk);
      whole.chunks.push(chunk);
      whole.length += chunk.length;
      if (whole.length <= MAX_WHOLE_BYTES) return true;
      const { status, head, chunks } = whole;
      whole = undefined;
      if (early) {
        reset();
        return true;
      }
      response.writeHead(status, [...head.headers, ...own]);
      return send(Buffer.concat(chunks));
    },
    end() {
      if (over) return 'ended';
      if (whole !== undefined) {
        finishWhole(whole);
        return 'ended';
      }
      if (waiting !== undefined) {
        waiting = 'ended';
        return 'ended';
      }
      if (cutter !== undefined && !framed) {
        sendLast(cutter.lines());
        if (!(form === 'chat' ? tail.done() : complete)) return 'cut';
      }
      finish();
      return 'ended';
    },
    fail(error) {
      if (whole !== undefined) {
        whole = undefined;
        if (early) {
          writer.end(errorEvent(form, error));
          return 'told';
        }
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
        writer.end();
        return 'complete';
      }
      const bridge = cutter === undefined ? undefined : tail.bridge();
      // A client that does not read would not read the event either.
      if (bridge === undefined || response.writableNeedDrain) return reset();
      writer.end(`${bridge}${errorEvent(form, error)}`);
      return 'told';
    },
  };
}
