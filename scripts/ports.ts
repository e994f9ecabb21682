import { createServer } from 'node:net';

/** Below Linux's range for outgoing connections (32768 and up), which could take a port between check and use. */
const FIRST = 20_000;
const COUNT = 12_000;
const TRIES = 100;

/** Why nothing could listen on this address now; undefined when something could. */
export function portProblem(host: string, port: number): Promise<string | undefined> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code === 'EADDRINUSE' ? `port ${port} of ${host} is in use` : error.message);
    });
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

/** Different ports of 127.0.0.1 on which nothing listens now. A process that is started again can keep its port. */
export async function freePorts(count: number): Promise<number[]> {
  const found = new Set<number>();
  for (let tries = 0; found.size < count; tries++) {
    if (tries > TRIES) throw new Error(`no ${count} free ports found between ${FIRST} and ${FIRST + COUNT}`);
    const port = FIRST + Math.floor(Math.random() * COUNT);
    if ((await portProblem('127.0.0.1', port)) === undefined) found.add(port);
  }
  return [...found];
}
