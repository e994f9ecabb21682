import type { GatewayError } from '../errors.ts';
import type { StreamForm } from '../routes.ts';

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
/** A line longer than this is passed on in pieces. */
const MAX_HELD_BYTES = 256 * 1024;
const TAIL_BYTES = 64;
const DONE = /(^|[\r\n])data: ?\[DONE\][\r\n]*$/;
const EMPTY = Buffer.alloc(0);

/**
 * Lets the bytes of an event stream through in whole lines, and remembers where the client is. The line that is still
 * open waits for its end, which delays nothing that a reader could use; so when the backend breaks off in the middle of
 * a line or of a character, an error event can follow that every reader understands.
 */
export interface LineGate {
  /** The bytes that may be sent now, possibly none. */
  push(chunk: Buffer): Buffer;
  /** At a proper end: the rest. */
  rest(): Buffer;
  /** `data: [DONE]` was the last that was sent. */
  done(): boolean;
  /** What has to be sent before an event of our own; undefined inside an overlong line: nothing can follow that. */
  bridge(): string | undefined;
}

export function createLineGate(): LineGate {
  let held: Buffer[] = [];
  let heldBytes = 0;
  let tail = '';

  const release = (...parts: Buffer[]): Buffer => {
    const bytes = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
    tail = (tail + bytes.toString('latin1', Math.max(0, bytes.length - TAIL_BYTES))).slice(-TAIL_BYTES);
    return bytes;
  };

  return {
    push(chunk) {
      const end = lastLineEnd(chunk) + 1;
      if (end === chunk.length && heldBytes === 0) return release(chunk);
      if (end > 0) {
        const bytes = release(...held, chunk.subarray(0, end));
        held = [];
        heldBytes = 0;
        chunk = chunk.subarray(end);
        if (chunk.length > 0) {
          held.push(chunk);
          heldBytes = chunk.length;
        }
        return bytes;
      }
      held.push(chunk);
      heldBytes += chunk.length;
      return heldBytes > MAX_HELD_BYTES ? this.rest() : EMPTY;
    },
    rest() {
      if (heldBytes === 0) return EMPTY;
      const bytes = release(...held);
      held = [];
      heldBytes = 0;
      return bytes;
    },
    done: () => DONE.test(tail),
    bridge() {
      if (tail === '' || /(\n\n|\r\r|\r\n\r\n)$/.test(tail)) return '';
      return /[\r\n]$/.test(tail) ? '\n' : undefined;
    },
  };
}

function lastLineEnd(chunk: Buffer): number {
  const lineFeed = chunk.lastIndexOf(LINE_FEED);
  return lineFeed === -1 ? chunk.lastIndexOf(CARRIAGE_RETURN) : lineFeed;
}

/**
 * An error as the last event of a stream, in the form that the API's clients look for. For chat and text completions
 * as vLLM sends it, `[DONE]` included; the other two APIs end with their `error` event (without the
 * `sequence_number` of the responses API: counting would mean to parse every event).
 */
export function errorEvent(form: StreamForm, error: GatewayError): string {
  switch (form) {
    case 'chat':
      return `data: ${JSON.stringify(error.body())}\n\ndata: [DONE]\n\n`;
    case 'responses': {
      const { type, message, param } = error;
      return `event: error\ndata: ${JSON.stringify({ type: 'error', code: type, message, param })}\n\n`;
    }
    case 'messages': {
      const { type, message } = error;
      return `event: error\ndata: ${JSON.stringify({ type: 'error', error: { type, message } })}\n\n`;
    }
  }
}
