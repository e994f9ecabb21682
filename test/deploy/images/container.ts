import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Image, inside, pathOf } from './image.ts';

export interface Container {
  /** Resolves when the image's health check passes. Rejects with what the program printed when it ends before. */
  healthy(): Promise<void>;
  /** The exit code after SIGTERM; undefined: it was ended by a signal. */
  stop(): Promise<number | undefined>;
  /** The exit code of a program that ends by itself. */
  ended(): Promise<number | undefined>;
  output(): string;
}

export interface RunOptions {
  env?: Readonly<Record<string, string>>;
  /** In place of the image's command. */
  command?: readonly string[];
}

const HEALTHY_MS = 180_000;
const STOP_MS = 30_000;
/** Names of users in base images. */
const USERS: Readonly<Record<string, number>> = { root: 0, node: 1000 };

/**
 * Runs an image's command as its user, with the image's environment and nothing else, in its working folder. The user is
 * switched where this process may do so (as root); `/` is this machine's.
 */
export function run(image: Image, { env = {}, command }: RunOptions = {}): Container {
  const environment = { HOME: '/nonexistent', ...pathOf(image), ...env };
  const start = (words: readonly string[]): ChildProcess => {
    const [program = '', ...args] = words;
    return spawn(program, args, {
      cwd: inside(image, '.'),
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      ...userOf(image),
    });
  };
  const child = start([...image.entrypoint, ...(command ?? image.cmd)]);
  let output = '';
  let failure: Error | undefined;
  child.once('error', (error) => {
    failure = error;
  });
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const exit = once(child, 'close').then(() => undefined);

  return {
    async healthy() {
      const deadline = Date.now() + HEALTHY_MS;
      for (;;) {
        if (failure !== undefined) throw failure;
        if (child.exitCode !== null) throw new Error(`ended with code ${child.exitCode}\n${output}`);
        const probe = start(image.healthcheck);
        let said = '';
        probe.stderr?.setEncoding('utf8').on('data', (text: string) => {
          said += text;
        });
        const [code] = (await once(probe, 'close')) as [number | null];
        if (code === 0) return;
        if (Date.now() > deadline) throw new Error(`not healthy in ${HEALTHY_MS} ms: ${said}\n${output}`);
        await sleep(200);
      }
    },
    async stop() {
      child.kill('SIGTERM');
      const force = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      await exit;
      clearTimeout(force);
      return child.exitCode ?? undefined;
    },
    async ended() {
      await exit;
      return child.exitCode ?? undefined;
    },
    output: () => output,
  };
}

function userOf(image: Image): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const [uid, gid = uid] = image.user.split(':').map((part) => USERS[part] ?? Number(part));
  return { uid: uid as number, gid: gid as number };
}
