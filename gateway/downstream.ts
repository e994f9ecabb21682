import type { IncomingMessage, ServerResponse } from 'node:http';
import type { GatewayError } from './errors.ts';
import type { ResponseHead } from './headers.ts';
import type { StreamForm } from './routes.ts';
import { createLineGate, errorEvent, type LineGate } from './sse.ts';

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
  fail(error: GatewayError): 'told' | 'reset' | 'complete';
}

/** `own` are the gateway's headers, names and values in turn. */
export function createDownstream(
  request: IncomingMessage,
  response: ServerResponse,
  form: StreamForm,
  own: readonly string[],
): Downstream {
  let gate: LineGate | undefined;
  let framed = true;

  const reset = () => {
    // HTTP/1.0 takes a closed connection for the end of the body; a reset cannot be mistaken.
    if (request.httpVersion === '1.0') request.socket.resetAndDestroy();
    else response.destroy();
    return 'reset' as const;
  };

  return {
    start(status, head) {
      framed = head.framed;
      response.writeHead(status, [...head.headers, ...own]);
      if (head.eventStream) {
        gate = createLineGate();
        response.flushHeaders();
      }
    },
    write(chunk) {
      const bytes = gate === undefined ? chunk : gate.push(chunk);
      return bytes.length === 0 || response.write(bytes);
    },
    end() {
      if (gate !== undefined) {
        if (!framed && form === 'chat' && !gate.done()) return 'cut';
        const rest = gate.rest();
        if (rest.length > 0) response.write(rest);
      }
      response.end();
      return 'ended';
    },
    fail(error) {
      if (gate?.done()) {
        response.end();
        return 'complete';
      }
      const bridge = gate?.bridge();
      // A client that does not read would not read the event either.
      if (bridge === undefined || response.writableNeedDrain) return reset();
      response.end(`${bridge}${errorEvent(form, error)}`);
      return 'told';
    },
  };
}
