/** The upstream of the soak: `upstream.ts PORT`. Does what a request asks for in `user`, see behaviours.ts. */
import { createServer, type ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { ANSWER, chunk, DONE, now } from '../gateway/shapes.ts';
import type { Behaviour } from './behaviours.ts';

const [port = '0'] = process.argv.slice(2);
const EVENTS = 12;
const EVENT_MS = 10;
const LARGE = Buffer.alloc(2 ** 20, 'x');
const JSON_TYPE = { 'content-type': 'application/json' };
const SSE_TYPE = { 'content-type': 'text/event-stream' };

let open = 0;
let overloaded = false;

const server = createServer((request, response) => {
  if (request.method === 'GET') {
    // How many requests are under way; the soak looks at this at the end.
    response.writeHead(200, JSON_TYPE).end(request.url === '/open' ? `${open}` : '{"object":"list","data":[]}');
    return;
  }
  open += 1;
  response.once('close', () => {
    open -= 1;
  });
  let body = '';
  request.setEncoding('latin1');
  request.on('data', (text: string) => {
    body += text;
  });
  request.on('end', () => void SCRIPTS[(/"user":"(\w+)"/.exec(body)?.[1] ?? 'answer') as Behaviour](response));
});

const answer = (response: ServerResponse) => void response.writeHead(200, JSON_TYPE).end(ANSWER);
const fail = (response: ServerResponse, status: number, headers: Record<string, string> = {}) =>
  void response
    .writeHead(status, { ...JSON_TYPE, ...headers })
    .end(JSON.stringify({ error: { message: 'scripted', type: 'scripted', param: null, code: status } }));

async function events(response: ServerResponse, count: number): Promise<void> {
  response.writeHead(200, SSE_TYPE);
  for (let i = 0; i < count && !response.destroyed; i++) {
    response.write(chunk(now()));
    await sleep(EVENT_MS);
  }
}

const SCRIPTS: Record<Behaviour, (response: ServerResponse) => void | Promise<void>> = {
  answer,
  stream: async (response) => {
    await events(response, EVENTS);
    response.end(DONE);
  },
  large: (response) => void response.writeHead(200, JSON_TYPE).end(LARGE),
  refused: (response) => fail(response, 400),
  overloaded_once: (response) => {
    overloaded = !overloaded;
    if (overloaded) fail(response, 503, { 'retry-after': '0' });
    else answer(response);
  },
  hang_first: () => {},
  hang_mid: (response) => events(response, 3),
  half_event: async (response) => {
    await events(response, 2);
    response.write(chunk(now()).slice(0, 60), () => response.destroy());
  },
  garbage: (response) => void response.socket?.end('\x16\x03\x01 this is not HTTP at all\r\n\r\n'),
  reset: (response) => void response.socket?.resetAndDestroy(),
  reset_body: (response) => {
    response.writeHead(200, { ...JSON_TYPE, 'content-length': '100000' });
    response.write('{"id":', () => setTimeout(() => response.destroy(), EVENT_MS));
  },
  html_500: (response) => void response.writeHead(500, { 'content-type': 'text/html' }).end('<h1>Oops</h1>'),
  // HTTP/1.0 style: the end of the connection is the end of the body.
  no_done: async (response) => {
    const { socket } = response;
    socket?.write('HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n');
    for (let i = 0; i < 3; i++) {
      socket?.write(chunk(now()));
      await sleep(EVENT_MS);
    }
    socket?.end();
  },
};

server.listen(Number(port), '127.0.0.1');
process.once('SIGTERM', () => process.exit(0));
