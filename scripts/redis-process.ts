import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { within } from '../common/time.ts';
import { type Child, startChild } from './child.ts';
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
  let child: Child | undefined;

  const redis: RedisProcess = {
    url,
    async start() {
      const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder];
      child = await startChild(['redis-server', ...args], { stdio: 'ignore' });
      await answers(url, child);
    },
    async kill() {
      child?.signal('SIGKILL');
      await child?.exited;
    },
    freeze: () => child?.signal('SIGSTOP'),
    thaw: () => child?.signal('SIGCONT'),
    async close() {
      await child?.stop(0);
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

async function answers(url: string, child: Child): Promise<void> {
  const client = new Redis(url, { retryStrategy: () => 20, maxRetriesPerRequest: null });
  client.on('error', () => {});
  const ended = child.exited.then(({ code, signal }) => {
    throw new Error(`redis-server ended (${code ?? signal}) before it answered`);
  });
  try {
    const answer = await within(Promise.race([client.ping(), ended]), START_MS);
    if (answer === undefined) throw new Error(`redis-server did not answer in ${START_MS} ms`);
  } finally {
    client.disconnect();
  }
}
