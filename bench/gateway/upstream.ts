/**
 * The scripted server behind every gateway of the bench, as cheap as Node makes it: `upstream.ts PORT`.
 * A chat completion of about 700 bytes at once, or one event after the other, each with the time at which it was written and,
 * if that was asked for, the usage so far.
 */
import { createServer, type ServerResponse } from 'node:http';
import { ANSWER, chunk, DONE, MODEL, now, perSecondIn } from './shapes.ts';

const [port = '0'] = process.argv.slice(2);

const JSON_HEADERS = ['content-type', 'application/json', 'content-length', `${ANSWER.length}`];
const SSE_HEADERS = ['content-type', 'text/event-stream; charset=utf-8', 'cache-control', 'no-cache'];
const MODELS = JSON.stringify({ object: 'list', data: [{ id: MODEL, object: 'model', owned_by: 'bench' }] });
const MAX_EVENTS = 1_000_000;

const server = createServer((request, response) => {
  if (request.method !== 'POST') {
    const body = request.url === '/v1/models' ? MODELS : '{}';
    response.writeHead(200, ['content-type', 'application/json']).end(body);
    return;
  }
  const parts: Buffer[] = [];
  request.on('data', (bytes: Buffer) => parts.push(bytes));
  request.on('end', () => {
    const body = Buffer.concat(parts).toString('latin1');
    if (!/"stream": ?true/.test(body)) response.writeHead(200, JSON_HEADERS).end(ANSWER);
    else sendEvents(response, body);
  });
});

function sendEvents(response: ServerResponse, body: string): void {
  const events = Math.min(MAX_EVENTS, Number(/"max_tokens": ?(\d+)/.exec(body)?.[1] ?? 16));
  const tellsUsage = /"continuous_usage_stats": ?true/.test(body);
  const intervalMs = 1000 / perSecondIn(body);
  response.writeHead(200, SSE_HEADERS);
  response.flushHeaders();
  // One buffer for each event, which costs this process as little as possible.
  response.chunkedEncoding = false;
  const started = now();
  let sent = 0;
  const write = (text: string) => response.write(`${text.length.toString(16)}\r\n${text}\r\n`, 'latin1');
  const send = () => {
    // Timers have whole milliseconds, and come late on a busy core: what is due is sent.
    const due = Math.min(events, Math.floor((now() - started) / 1000 / intervalMs) + 1);
    for (; sent < due; sent++) write(chunk(now(), tellsUsage ? sent + 1 : undefined));
    if (sent < events) return;
    clearInterval(timer);
    write(DONE);
    response.end('0\r\n\r\n');
  };
  const timer = setInterval(send, Math.max(1, Math.floor(intervalMs)));
  response.on('close', () => clearInterval(timer));
  send();
}

server.keepAliveTimeout = 300_000;
server.listen(Number(port), '127.0.0.1');
process.once('SIGTERM', () => process.exit(0));
