import type { ServerResponse } from 'node:http';
import { GatewayError } from '../errors.ts';
import { ownHeaders } from '../observe/record.ts';
import type { Handler } from '../request/exchange.ts';
import type { Source } from './sources.ts';

/** Pages that may look at the same time. Each costs the bytes of a state every 50 ms. */
const MAX_VIEWERS = 32;
/** A comment from time to time finds connections that are gone. */
const HEARTBEAT_MS = 15_000;

/** Who looks at the policy services through this gateway: server-sent events, the newest state and nothing old. */
export function createViewers(sources: () => readonly Source[], route: string) {
  const viewers = new Set<() => void>();

  const open = (response: ServerResponse): (() => void) => {
    const removals = sources().map(({ hub }) =>
      hub.add({
        send(event, data) {
          // A viewer that is slower than the states gets the next one that fits; a loss is told in any case.
          if (event === 'state' && response.writableNeedDrain) return;
          response.write(`event: ${event}\ndata: ${data}\n\n`);
        },
      }),
    );
    const heartbeat = setInterval(() => response.write(': still here\n\n'), HEARTBEAT_MS);
    return () => {
      clearInterval(heartbeat);
      for (const remove of removals) remove();
    };
  };

  const handler: Handler = function streamStates({ response, record }) {
    record.route = route;
    if (viewers.size >= MAX_VIEWERS) {
      throw new GatewayError('too_many_viewers', {
        message: `${MAX_VIEWERS} live pages are open already; close one`,
        headers: { 'retry-after': '5' },
      });
    }
    response.writeHead(200, [
      ...['content-type', 'text/event-stream; charset=utf-8', 'cache-control', 'no-store', 'x-accel-buffering', 'no'],
      ...ownHeaders(record),
    ]);
    response.flushHeaders();
    record.firstByteAt = performance.now();
    const leave = open(response);
    const finish = () => {
      if (!viewers.delete(finish)) return;
      leave();
      response.end();
    };
    viewers.add(finish);
    response.once('close', finish);
    record.stop.signal.addEventListener('abort', finish);
  };

  return {
    handler,
    get count() {
      return viewers.size;
    },
    /** Ends every stream. */
    close() {
      for (const finish of viewers) finish();
    },
  };
}
