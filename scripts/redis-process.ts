import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { freePorts } from './ports.ts';

const START_MS = 60_000;

/** Why none can be started; false when one can. */
export const NO_REDIS: string | false =
  spawnSync('redis-server', ['--version']).error === undefined ? false : 'redis-server is not installed';

/** A real Redis of one's own, on 127.0.0.1 and without persistence. */
export interface RedisProcess {
  readonly url: string;
  /** As after a crash: all it held is gone. */
  kill(): Promise<void>;
  /** On the same port. Rejects when it does not answer. */
  start(): Promise<void>;
  /** It keeps its connections and answers nothing. */
  freeze(): void;
  thaw(): void;
  /** For good, whether it runs or not. */
  close(): Promise<void>;
}

export async function startRedisProcess(): Promise<RedisProcess> {
  const [port] = await freePorts(1);
  const url = `redis://127.0.0.1:${port}`;
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-redis-'));
  let child: ChildProcess | undefined;
  const atExit = () => void child?.kill('SIGKILL');
  process.once('exit', atExit);

  const redis: RedisProcess = {
    url,
    async start() {
      const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder];
      child = spawn('redis-server', args, { stdio: 'ignore' });
      await answers(url, child);
    },
    async kill() {
      if (child === undefined) return;
      const ended = child.exitCode === null && child.signalCode === null ? once(child, 'close') : undefined;
      child.kill('SIGKILL');
      await ended;
      child = undefined;
    },
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
    async close() {
      await redis.kill();
      process.off('exit', atExit);
      rmSync(folder, { recursive: true, force: true });
    },
  };
  try {
    await redis.start();
  } catch (error) {
    await redis.close();
    throw error;
  }
  return redis;
}

async function answers(url: string, child: ChildProcess): Promise<void> {
  const client = new Redis(url, { retryStrategy: () => 20, maxRetriesPerRequest: null });
  client.on('error', () => {});
  let timer: NodeJS.Timeout | undefined;
  const failed = new Promise<never>((_resolve, reject) => {
    child.once('error', (error) => reject(new Error(`redis-server cannot be started: ${error.message}`)));
    child.once('exit', (code) => reject(new Error(`redis-server ended (${code}) before it answered`)));
    timer = setTimeout(() => reject(new Error(`redis-server did not answer in ${START_MS} ms`)), START_MS);
  });
  // It ends later, too.
  failed.catch(() => {});
  try {
    await Promise.race([client.ping(), failed]);
  } finally {
    clearTimeout(timer);
    client.disconnect();
  }
}
