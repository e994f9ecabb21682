import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { freePorts } from '../../scripts/ports.ts';
import { ROOT, type RunningProcess } from '../../scripts/processes.ts';
import { type RedisProcess, startRedisProcess } from '../../scripts/redis-process.ts';
import { startServer } from '../gateway/server.ts';
import { type Inspector, openInspector } from './inspector.ts';
import { createKeys } from './keys.ts';
import type { Keys } from './redis-counts.ts';

/** The gateway and all that is around it, each a process of its own. */
export interface Testbed {
  url: string;
  gateway: RunningProcess;
  inspector: Inspector;
  redis: RedisProcess;
  keys: Keys;
  upstreams: readonly string[];
  /** The upstream that comes and goes. */
  second: string;
  /** Changes the configuration and tells the gateway: with or without the second upstream. */
  reload(reduced: boolean): void;
  close(): Promise<void>;
}

/** `folder` gets the configuration, the keys and the logs. */
export async function openTestbed(folder: string, signal: AbortSignal): Promise<Testbed> {
  const closers: (() => Promise<void> | void)[] = [];
  const close = async () => {
    for (const end of closers.reverse()) await end();
  };
  const start = async (name: string, args: string[], readyUrl: string) => {
    const command = [process.execPath, ...args];
    const server = await startServer({ name, command, folder, readyUrl }, signal);
    closers.push(async () => void (await server.stop()));
    return server;
  };
  try {
    const redis = await startRedisProcess();
    closers.push(redis.close);
    const [first = 0, other = 0, gone = 0, port = 0, inspect = 0] = await freePorts(5);
    const script = join(ROOT, 'bench/soak/upstream.ts');
    const address = (at: number) => `http://127.0.0.1:${at}`;
    for (const at of [first, other]) await start(`upstream-${at}`, [script, `${at}`], address(at));
    const keysFile = join(folder, 'keys.json');
    const keys = await createKeys(keysFile);
    const config = join(folder, 'crystal-kv.yaml');
    const write = (ports: readonly number[]) =>
      writeFileSync(config, stringify({ gateway: section(port, ports.map(address), keysFile, redis.url) }));
    write([first, other, gone]);
    const url = address(port);
    const args = [`--inspect=127.0.0.1:${inspect}`, join(ROOT, 'gateway/main.ts'), '--config', config];
    const gateway = await start('gateway', args, `${url}/ready`);
    const inspector = await openInspector(inspect);
    closers.push(inspector.close);
    return {
      url,
      gateway,
      inspector,
      redis,
      keys,
      upstreams: [address(first), address(other)],
      second: address(other),
      reload(reduced) {
        write(reduced ? [first, gone] : [first, other, gone]);
        gateway.signal('SIGHUP');
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Short times, so that what hangs is cut often; so few places that requests queue at times. */
const section = (port: number, urls: readonly string[], keysFile: string, redisUrl: string) => ({
  port,
  backends: urls.map((url) => ({ url })),
  timeouts: { connect_ms: 5000, first_byte_ms: 5000, idle_ms: 5000, total_ms: 40_000 },
  models: { learn: false },
  admission: { concurrency: 16, queue: 24, queue_ms: 2000, event_loop_delay_ms: 0 },
  keys: { store: 'file', file: keysFile },
  // A busy machine must not look like a Redis that is gone.
  redis: { url: redisUrl, timeout_ms: 2000 },
});
