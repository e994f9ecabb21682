import type { RequestListener, Server, ServerOptions } from 'node:http';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';

/** A listening server. `close` stops accepting and resolves when its last connection has ended. */
export interface Listening {
  server: Server;
  /** The port it got, also when 0 was asked for. */
  port: number;
  url: string;
  close(): Promise<void>;
}

/**
 * Listens, with TLS when there is a certificate, or rejects with a message that names the address (port in use, not
 * permitted).
 */
export function listen(
  handler: RequestListener,
  host: string,
  port: number,
  tls?: { cert: Buffer; key: Buffer },
  options: ServerOptions = {},
): Promise<Listening> {
  const server = tls === undefined ? createServer(options, handler) : createTlsServer({ ...options, ...tls }, handler);
  const scheme = tls === undefined ? 'http' : 'https';
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const reason = error.code === 'EADDRINUSE' ? 'the port is in use' : error.message;
      reject(new Error(`cannot listen on ${host}:${port}: ${reason}`));
    });
    server.listen(port, host, () => {
      const actual = (server.address() as AddressInfo).port;
      resolve({
        server,
        port: actual,
        url: `${scheme}://${host.includes(':') ? `[${host}]` : host}:${actual}`,
        close: () => closeServer(server),
      });
    });
  });
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

/** Answers `GET /metrics` in Prometheus' text format and `GET /health`; everything else is 404. */
export function metricsHandler(registry: MetricsSource): RequestListener {
  return (request, response) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405, { allow: 'GET, HEAD' }).end();
    } else if (request.url === '/health') {
      response.writeHead(200, { 'content-type': 'text/plain' }).end('ok\n');
    } else if (request.url === '/metrics') {
      registry.metrics().then(
        (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
        (error: Error) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${error.message}\n`),
      );
    } else {
      response.writeHead(404).end();
    }
  };
}
