import { Agent, type IncomingMessage, request } from 'node:http';
import type { Behaviour } from './behaviours.ts';

/** When a client gives up. `no`: it stays; `slow`: it stays and pauses in the middle. */
export const LEAVES = ['no', 'slow', 'upload', 'waiting', 'streaming'] as const;
export type Leaves = (typeof LEAVES)[number];

/** How a request ended for its client. A `told` stream held an error event; a `reset` one broke off without a word. */
export type End = { kind: 'complete' | 'told' | 'reset'; status: number } | { kind: 'left' };

const STREAMED: ReadonlySet<Behaviour> = new Set(['stream', 'hang_mid', 'half_event', 'no_done']);
const PAUSE_MS = 200;
/** Longer than anything that the gateway may take. */
const DEADLINE_MS = 30_000;

export interface SoakClient {
  /** Sends one chat completion. Rejects when nothing ended it. */
  send(behaviour: Behaviour, leaves: Leaves, leaveAfterMs: number): Promise<End>;
  /** Closes all connections. */
  close(): void;
}

export function createSoakClient(url: string): SoakClient {
  const agent = new Agent({ keepAlive: true, maxSockets: 1000 });
  return {
    send: (behaviour, leaves, leaveAfterMs) =>
      new Promise((resolve, reject) => {
        const body = JSON.stringify({
          model: 'soak',
          user: behaviour,
          messages: [{ role: 'user', content: 'a question that takes some thought '.repeat(20) }],
          stream: STREAMED.has(behaviour),
        });
        const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
        const sent = request(`${url}/v1/chat/completions`, { method: 'POST', agent, headers });
        const deadline = setTimeout(() => {
          sent.destroy();
          reject(new Error(`a request (${behaviour}, leaves: ${leaves}) did not end in ${DEADLINE_MS} ms`));
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
        sent.on('error', () => settle({ kind: 'reset', status: 0 }));
        sent.on('response', (response) => {
          if (leaves === 'streaming') setTimeout(leave, leaveAfterMs);
          if (leaves === 'slow') setTimeout(() => pause(response), leaveAfterMs);
          read(response, settle);
        });
        if (leaves === 'upload') {
          sent.write(body.slice(0, 100), () => setTimeout(leave, leaveAfterMs));
          return;
        }
        sent.end(body, () => {
          if (leaves === 'waiting') setTimeout(leave, leaveAfterMs);
        });
      }),
    close: () => agent.destroy(),
  };
}

function read(response: IncomingMessage, settle: (end: End) => void): void {
  const status = response.statusCode ?? 0;
  const isStream = `${response.headers['content-type']}`.startsWith('text/event-stream');
  let text = '';
  response.setEncoding('latin1');
  response.on('data', (piece: string) => {
    if (isStream) text += piece;
  });
  response.on('error', () => {});
  response.on('close', () => {
    if (!response.complete) settle({ kind: 'reset', status });
    else settle({ kind: isStream && /^data: \{"error":/m.test(text) ? 'told' : 'complete', status });
  });
}

function pause(response: IncomingMessage): void {
  response.pause();
  setTimeout(() => response.resume(), PAUSE_MS);
}
