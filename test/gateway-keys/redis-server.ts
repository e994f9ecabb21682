import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { freePorts } from '../../scripts/ports.ts';
import { until } from '../gateway/harness.ts';

/** Why tests that need Redis are skipped; false when they run. */
export const NO_REDIS: string | false =
  spawnSync('redis-server', ['--version']).error === undefined ? false : 'redis-server is not installed';

/** A real Redis of a test's own, without persistence. */
export interface RedisServer {
  url: string;
  /** As after a crash: all it held is gone. */
  kill(): Promise<void>;
  /** On the same port. */
  start(): Promise<void>;
  /** It keeps its connections and answers nothing. */
  freeze(): void;
  thaw(): void;
  /** A connection for the test itself. */
  client(): Redis;
}

export async function startRedis(t: { after(end: () => void | Promise<void>): void }): Promise<RedisServer> {
  const [port] = await freePorts(1);
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-redis-'));
  const clients: Redis[] = [];
  let child: ChildProcess | undefined;
  const server: RedisServer = {
    url: `redis://127.0.0.1:${port}`,
    async start() {
      const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder];
      child = spawn('redis-server', args, { stdio: 'ignore' });
      const client = new Redis(server.url, { retryStrategy: () => 20, maxRetriesPerRequest: null });
      client.on('error', () => {});
      await until(async () => (await client.ping()) === 'PONG', 'redis answers');
      client.disconnect();
    },
    async kill() {
      const ended = once(child as ChildProcess, 'close');
      child?.kill('SIGKILL');
      await ended;
      child = undefined;
    },
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
    client() {
      const client = new Redis(server.url);
      client.on('error', () => {});
      clients.push(client);
      return client;
    },
  };
  await server.start();
  t.after(async () => {
    for (const client of clients) client.disconnect();
    if (child !== undefined) {
      server.thaw();
      await server.kill();
    }
    rmSync(folder, { recursive: true, force: true });
  });
  return server;
}
