import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net';
import { USER_AGENT } from '../../gateway/fleet/own-request.ts';

/** A request as the server got it. */
export interface Received {
  method: string;
  url: string;
  headers: IncomingMessage['headers'];
  rawHeaders: string[];
  body: Buffer;
  response: ServerResponse;
  /** The connection was closed before the response had ended. */
  aborted: boolean;
}

/** A request from its head on. */
export interface Arriving {
  request: IncomingMessage;
  response: ServerResponse;
  /** Of its body, so far. */
  bytes: number;
  /** Its connection was closed before its body had ended. */
  aborted: boolean;
}

/** What the server does with a request, whose body it has read. */
export type Script = (received: Received) => void | Promise<void>;

export interface Upstream {
  url: string;
  port: number;
  received: Received[];
  /** Every request, its body complete or not. */
  arriving: Arriving[];
  /** Replaces what the server does. */
  script: Script;
  /** What `/health` says. */
  healthy: boolean;
  /** What the gateway's own questions for models and metrics are answered; undefined: 404. They are not recorded. */
  models: string[] | undefined;
  metrics: string | undefined;
  /** Below it. */
  server: Server;
  close(): Promise<void>;
}

/** A scripted server in the place of an engine. `GET /health` is not recorded. */
export async function createUpstream(script: Script, port = 0, host = '127.0.0.1'): Promise<Upstream> {
  const server = createServer((request, response) => {
    if (request.url === '/health') {
      response.writeHead(upstream.healthy ? 200 : 503).end();
      return;
    }
    if (request.headers['user-agent'] === USER_AGENT) {
      const { models, metrics } = upstream;
      if (request.url === '/v1/models' && models !== undefined) {
        response.end(JSON.stringify({ object: 'list', data: models.map((id) => ({ id, object: 'model' })) }));
      } else if (request.url === '/metrics' && metrics !== undefined) response.end(metrics);
      else response.writeHead(404).end();
      return;
    }
    const chunks: Buffer[] = [];
    const arriving: Arriving = { request, response, bytes: 0, aborted: false };
    upstream.arriving.push(arriving);
    request.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      arriving.bytes += chunk.length;
    });
    request.on('error', () => {});
    request.on('close', () => {
      arriving.aborted = !request.complete;
    });
    request.on('end', () => {
      const received: Received = {
        method: request.method ?? '',
        url: request.url ?? '',
        headers: request.headers,
        rawHeaders: request.rawHeaders,
        body: Buffer.concat(chunks),
        response,
        aborted: false,
      };
      response.on('close', () => {
        received.aborted = !response.writableFinished;
      });
      upstream.received.push(received);
      void upstream.script(received);
    });
  });
  await new Promise<void>((resolve) => server.listen(port, host, resolve));
  const actual = (server.address() as AddressInfo).port;
  const upstream: Upstream = {
    url: `http://${host}:${actual}`,
    port: actual,
    received: [],
    arriving: [],
    script,
    healthy: true,
    models: undefined,
    metrics: undefined,
    server,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return upstream;
}

/** Answers with JSON text, to the byte. */
export function json(text: string, status = 200, headers: Record<string, string | string[]> = {}): Script {
  return ({ response }) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(text);
  };
}

/** Streams the pieces, each in a write of its own, and ends. */
export function stream(pieces: readonly (string | Buffer)[]): Script {
  return async ({ response }) => {
    await send(response, pieces);
    response.end();
  };
}

/** Streams the pieces and then closes the connection in the middle of the response. */
export function cut(pieces: readonly (string | Buffer)[], type = 'text/event-stream'): Script {
  return async ({ response }) => {
    await send(response, pieces, type);
    response.destroy();
  };
}

/** Streams the pieces and then sends nothing more. */
export function hangAfter(pieces: readonly (string | Buffer)[]): Script {
  return async ({ response }) => {
    await send(response, pieces);
  };
}

/** Never answers. */
export const hang: Script = () => {};

/** Closes the connection without an answer. */
export const drop: Script = ({ response }) => {
  response.destroy();
};

async function send(response: ServerResponse, pieces: readonly (string | Buffer)[], type = 'text/event-stream') {
  response.writeHead(200, { 'content-type': `${type}; charset=utf-8` });
  response.flushHeaders();
  for (const piece of pieces) {
    await new Promise((resolve) => response.write(piece, resolve));
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** A server below HTTP: answers each connection's first bytes with exactly these, then closes it. */
export async function createRawUpstream(answer: string): Promise<{ url: string; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('data', () => socket.end(answer));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
}

/** An address on which nothing listens any more. */
export async function refusedUrl(): Promise<string> {
  const upstream = await createUpstream(hang);
  await upstream.close();
  return upstream.url;
}

/** One line of text after another in, the bytes that came back out. */
export interface RawClient {
  socket: Socket;
  write(text: string | Buffer): void;
  /** All that was received, as latin1. */
  text(): string;
  closed(): boolean;
}

export async function rawClient(port: number): Promise<RawClient> {
  const socket = connect(port, '127.0.0.1');
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
  });
  const chunks: Buffer[] = [];
  let closed = false;
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => {});
  socket.on('close', () => {
    closed = true;
  });
  return {
    socket,
    write: (text) => void socket.write(text),
    text: () => Buffer.concat(chunks).toString('latin1'),
    closed: () => closed,
  };
}
