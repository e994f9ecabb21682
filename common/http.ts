import type { RequestListener, Server, ServerOptions } from 'node:http';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { addAcceptors, canShareAPort, claimAddress } from './acceptors.ts';

/** A listening server. `close` stops accepting and resolves when its last connection has ended. */
export interface Listening {
  server: Server;
  /** The port it got, also when 0 was asked for. */
  port: number;
  url: string;
  close(): Promise<void>;
}

export interface ListenOptions extends ServerOptions {
  /** How many connections a turn of the event loop may accept; 1 unless set, and where sockets cannot share a port. */
  acceptors?: number;
}

/**
 * Listens, with TLS when there is a certificate, or rejects with a message that names the address (port in use, not
 * permitted).
 */
export async function listen(
  handler: RequestListener,
  host: string,
  port: number,
  tls?: { cert: Buffer; key: Buffer },
  { acceptors = 1, ...options }: ListenOptions = {},
): Promise<Listening> {
  const server = tls === undefined ? createServer(options, handler) : createTlsServer({ ...options, ...tls }, handler);
  const scheme = tls === undefined ? 'http' : 'https';
  const reusePort = acceptors > 1 && canShareAPort;
  let disclaim: (() => void) | undefined;
  try {
    if (reusePort && port !== 0) disclaim = await claimAddress(host, port);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port, reusePort }, resolve);
    });
    const actual = (server.address() as AddressInfo).port;
    if (reusePort) disclaim ??= await claimAddress(host, actual);
    const closeOthers = reusePort ? await addAcceptors(server, host, actual, acceptors - 1) : undefined;
    return {
      server,
      port: actual,
      url: `${scheme}://${host.includes(':') ? `[${host}]` : host}:${actual}`,
      async close() {
        // Another program may listen there while the last connections end.
        disclaim?.();
        await Promise.all([closeServer(server), closeOthers?.()]);
      },
    };
  } catch (error) {
    server.close();
    disclaim?.();
    const { code, message } = error as NodeJS.ErrnoException;
    throw new Error(`cannot listen on ${host}:${port}: ${code === 'EADDRINUSE' ? 'the port is in use' : message}`);
  }
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
  });
}

/** What `/metrics` shows: a registry, or the sum of several processes'. */
export interface MetricsSource {
  readonly contentType: string;
  metrics(): Promise<string>;
}

/**
 * Answers `GET /metrics` in Prometheus' text format and `GET /health`; everything else is 404. Requests that come while a text is
 * being made get that one: a connection may bring thousands at once.
 */
export function metricsHandler(registry: MetricsSource): RequestListener {
  let making: Promise<string> | undefined;
  const metrics = () => {
    making ??= registry.metrics().finally(() => {
      making = undefined;
    });
    return making;
  };
  return (request, response) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405, { allow: 'GET, HEAD' }).end();
    } else if (request.url === '/health') {
      response.writeHead(200, { 'content-type': 'text/plain' }).end('ok\n');
    } else if (request.url === '/metrics') {
      metrics().then(
        (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
        (error: Error) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${error.message}\n`),
      );
    } else {
      response.writeHead(404).end();
    }
  };
}
