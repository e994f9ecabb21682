import { Agent, type ClientRequest, type IncomingMessage, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Body } from './bodies.ts';

/** When a client gives up. `no`: it stays; `slow`: it stays and pauses in the middle. */
export const LEAVES = ['no', 'slow', 'upload', 'waiting', 'streaming'] as const;
export type Leaves = (typeof LEAVES)[number];

/** How a request ended for its client. A `told` stream held an error event; a `reset` one broke off without a word. */
export type End = Ended | { kind: 'left' };
export interface Ended {
  kind: 'complete' | 'told' | 'reset';
  status: number;
  /** The beginning of the response. */
  text: string;
}

const PAUSE_MS = 200;
/** Between two pieces of a body. */
const PIECE_MS = 2;
/** Longer than anything that the gateway may take, also where the machine is busy. */
const DEADLINE_MS = 90_000;
const KEPT_CHARACTERS = 64 * 1024;

export interface Sending {
  body: Body;
  /** Undefined: no key is shown. */
  secret: string | undefined;
  leaves: Leaves;
  leaveAfterMs: number;
}

export interface SoakClient {
  /** Rejects when nothing ended the request. */
  send(sending: Sending): Promise<End>;
  /** Closes all connections. */
  close(): void;
}

export function createSoakClient(url: string): SoakClient {
  const agent = new Agent({ keepAlive: true, maxSockets: 1000 });
  return {
    send: ({ body, secret, leaves, leaveAfterMs }) =>
      new Promise((resolve, reject) => {
        const headers = {
          'content-type': body.contentType,
          'content-length': body.length,
          ...(secret !== undefined && { authorization: `Bearer ${secret}` }),
        };
        const sent = request(url + body.path, { method: 'POST', agent, headers });
        const deadline = setTimeout(() => {
          sent.destroy();
          reject(new Error(`a request to ${body.path} (leaves: ${leaves}) did not end in ${DEADLINE_MS} ms`));
        }, DEADLINE_MS);
        let left = false;
        const leave = () => {
          left = true;
          sent.destroy();
        };
        const settle = (end: End) => {
          clearTimeout(deadline);
          resolve(left ? { kind: 'left' } : end);
        };
        sent.on('error', () => settle({ kind: 'reset', status: 0, text: '' }));
        sent.on('response', (response) => {
          if (leaves === 'streaming') setTimeout(leave, leaveAfterMs);
          if (leaves === 'slow') setTimeout(() => pause(response), leaveAfterMs);
          read(response, settle);
        });
        const pieces = leaves === 'upload' ? body.pieces.slice(0, Math.ceil(body.pieces.length / 2)) : body.pieces;
        void write(sent, pieces).then(() => {
          if (leaves === 'upload') setTimeout(leave, leaveAfterMs);
          else sent.end();
          if (leaves === 'waiting') setTimeout(leave, leaveAfterMs);
        });
      }),
    close: () => agent.destroy(),
  };
}

/** Resolves when all has left this process: a client that leaves then was seen by the gateway. */
async function write(sent: ClientRequest, pieces: readonly Buffer[]): Promise<void> {
  // Where the gateway takes no more, the end of the request is the end of this.
  const closed = new Promise<void>((resolve) => sent.once('close', resolve));
  for (const [at, piece] of pieces.entries()) {
    if (sent.destroyed) return;
    if (at > 0) await sleep(PIECE_MS);
    await Promise.race([closed, new Promise<void>((resolve) => sent.write(piece, () => resolve()))]);
  }
}

function read(response: IncomingMessage, settle: (end: End) => void): void {
  const status = response.statusCode ?? 0;
  const isStream = `${response.headers['content-type']}`.startsWith('text/event-stream');
  let text = '';
  response.setEncoding('latin1');
  response.on('data', (piece: string) => {
    if (text.length < KEPT_CHARACTERS) text += piece;
  });
  response.on('error', () => {});
  response.on('close', () => {
    if (!response.complete) settle({ kind: 'reset', status, text });
    else settle({ kind: isStream && /^data: \{"error":/m.test(text) ? 'told' : 'complete', status, text });
  });
}

function pause(response: IncomingMessage): void {
  response.pause();
  setTimeout(() => response.resume(), PAUSE_MS);
}
