/** The upstream of the soak: `upstream.ts PORT`. Does what a request asks for in `user`, see behaviours.ts. */
import { createHash } from 'node:crypto';
import { createServer, type ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { ANSWER, chunk, DONE, now, usageEvent } from '../gateway/shapes.ts';
import { type Behaviour, digestOf, EVENTS, LARGE_BYTES, UPLOAD_USAGE, USAGE } from './behaviours.ts';

const [port = '0'] = process.argv.slice(2);
const EVENT_MS = 10;
const LARGE = Buffer.alloc(LARGE_BYTES, 'x');
const JSON_TYPE = { 'content-type': 'application/json' };
const SSE_TYPE = { 'content-type': 'text/event-stream' };
const HEAD_CHARACTERS = 16 * 1024;
/** In a chat, and in a form. */
const ASKS_FOR = /"user"(?::"|\r\n\r\n)(\w+)/;

interface Asked {
  usage: boolean;
  digest: string;
}

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
  let head = '';
  let bytes = 0;
  let early = false;
  const hash = createHash('sha256');
  const asksFor = () => (ASKS_FOR.exec(head)?.[1] ?? 'answer') as Behaviour;
  request.on('data', (piece: Buffer) => {
    bytes += piece.length;
    hash.update(piece);
    if (head.length < HEAD_CHARACTERS) head += piece.toString('latin1', 0, HEAD_CHARACTERS);
    if (early || !EARLY.has(asksFor())) return;
    early = true;
    void SCRIPTS[asksFor()](response, { usage: false, digest: '' });
  });
  request.on('end', () => {
    if (early) return;
    const asked = { usage: head.includes('"include_usage":true'), digest: digestOf(bytes, hash.digest('hex')) };
    void SCRIPTS[asksFor()](response, asked);
  });
});

const answer = (response: ServerResponse) => void response.writeHead(200, JSON_TYPE).end(ANSWER);
const fail = (response: ServerResponse, status: number, headers: Record<string, string> = {}) =>
  void response
    .writeHead(status, { ...JSON_TYPE, ...headers })
    .end(JSON.stringify({ error: { message: 'scripted', type: 'scripted', param: null, code: status } }));
const reset = (response: ServerResponse) => void response.socket?.resetAndDestroy();

async function events(response: ServerResponse, count: number): Promise<void> {
  response.writeHead(200, SSE_TYPE);
  for (let i = 0; i < count && !response.destroyed; i++) {
    response.write(chunk(now()));
    await sleep(EVENT_MS);
  }
}

async function stream(response: ServerResponse, { usage }: Asked): Promise<void> {
  await events(response, EVENTS);
  response.end(usage ? DONE.replace('data: [DONE]', () => `${usageEvent(USAGE)}data: [DONE]`) : DONE);
}

/** These do not wait for the end of the request. */
const EARLY: ReadonlySet<Behaviour> = new Set(['upload_refused', 'upload_reset']);

const SCRIPTS: Record<Behaviour, (response: ServerResponse, asked: Asked) => void | Promise<void>> = {
  answer,
  stream,
  stream_usage: stream,
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
  reset,
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
  upload: (response, { digest }) =>
    void response.writeHead(200, JSON_TYPE).end(JSON.stringify({ text: digest, usage: UPLOAD_USAGE })),
  upload_refused: (response) => fail(response, 400),
  upload_reset: reset,
};

server.listen(Number(port), '127.0.0.1');
process.once('SIGTERM', () => process.exit(0));
