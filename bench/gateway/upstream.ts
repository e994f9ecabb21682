/**
 * The scripted server behind every gateway of the bench, as cheap as Node makes it: `upstream.ts PORT EVENTS_PER_SECOND`.
 * A chat completion of about 700 bytes at once, or one event after the other, each with the time at which it was written.
 */
import { createServer, type ServerResponse } from 'node:http';
import { ANSWER, chunk, DONE, MODEL, now } from './shapes.ts';

const [port = '0', eventsPerSecond = '50'] = process.argv.slice(2);
const INTERVAL_MS = 1000 / Number(eventsPerSecond);

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
  let body = '';
  request.setEncoding('latin1');
  request.on('data', (text: string) => {
    body += text;
  });
  request.on('end', () => {
    if (!/"stream": ?true/.test(body)) response.writeHead(200, JSON_HEADERS).end(ANSWER);
    else sendEvents(response, Math.min(MAX_EVENTS, Number(/"max_tokens": ?(\d+)/.exec(body)?.[1] ?? 16)));
  });
});

function sendEvents(response: ServerResponse, count: number): void {
  response.writeHead(200, SSE_HEADERS);
  let sent = 0;
  const send = () => {
    response.write(chunk(now()));
    sent += 1;
    if (sent < count) return;
    clearInterval(timer);
    response.end(DONE);
  };
  const timer = setInterval(send, INTERVAL_MS);
  response.on('close', () => clearInterval(timer));
  send();
}

server.keepAliveTimeout = 300_000;
server.listen(Number(port), '127.0.0.1');
process.once('SIGTERM', () => process.exit(0));
