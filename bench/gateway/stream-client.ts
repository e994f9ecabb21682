import { connect } from 'node:net';
import type { Target } from './client.ts';
import { now } from './shapes.ts';

/** What was seen of one stream. Times in microseconds. */
export interface SeenStream {
  /** 200, and it came to its end. */
  good: boolean;
  events: number;
  /** How long each event was under way that was written late enough to count. */
  times: number[];
  /** From the request to the first event. */
  first: number | undefined;
}

const AT = 0x40;
const END = Buffer.from('[DONE]');
const GOOD = Buffer.from('HTTP/1.1 200');
const READ_BYTES = 64 * 1024;

/**
 * Reads one stream of chat completions on a connection of its own. It only looks for the times, so that the load generator
 * takes much less than what is measured. An event that a read or a chunk cuts in two is not counted. `countFrom`: a time of `now`.
 */
export function readStream({ url, headers }: Target, body: string, countFrom: number): Promise<SeenStream> {
  const { hostname, port, host } = new URL(url);
  const seen: SeenStream = { good: false, events: 0, times: [], first: undefined };
  const head = Object.entries({ host, 'content-type': 'application/json', ...headers })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('');
  const request = `POST /v1/chat/completions HTTP/1.1\r\n${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
  return new Promise((resolve) => {
    const started = now();
    let status: boolean | undefined;
    const read = (count: number, bytes: Uint8Array): boolean => {
      const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, count);
      status ??= chunk.subarray(0, GOOD.length).equals(GOOD);
      const arrived = now();
      for (let at = chunk.indexOf(AT); at !== -1; at = chunk.indexOf(AT, at)) {
        const end = chunk.indexOf(AT, at + 1);
        if (end === -1) break;
        const sent = Number(chunk.toString('latin1', at + 1, end));
        if (Number.isFinite(sent)) {
          seen.events += 1;
          if (sent >= countFrom) seen.times.push(arrived - sent);
          seen.first ??= arrived - started;
        }
        at = end + 1;
      }
      if (status && chunk.includes(END)) seen.good = true;
      if (seen.good || !status) socket.destroy();
      return true;
    };
    const socket = connect({
      ...{ host: hostname, port: Number(port), noDelay: true },
      onread: { buffer: Buffer.allocUnsafe(READ_BYTES), callback: read },
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(seen));
    socket.write(request);
  });
}
