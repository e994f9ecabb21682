import type { StdioOptions } from 'node:child_process';
import { outputOf, type ProcessExit, startChild } from '../../../scripts/child.ts';
import { PatienceError, until } from '../../../scripts/until.ts';
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
 * switched where this process may do so (as root); `/` is this machine's. Rejects when the command cannot be started.
 */
export async function run(image: Image, { env = {}, command }: RunOptions = {}): Promise<Container> {
  const options = {
    cwd: inside(image, '.'),
    env: { HOME: '/nonexistent', ...pathOf(image), ...env },
    stdio: ['ignore', 'pipe', 'pipe'] as StdioOptions,
    ...userOf(image),
  };
  const child = await startChild([...image.entrypoint, ...(command ?? image.cmd)], options);
  const output = outputOf(child);
  const codeOf = ({ code }: ProcessExit) => code ?? undefined;

  return {
    async healthy() {
      let problem = '';
      const passes = async () => {
        const exit = child.exit();
        if (exit !== undefined) throw new Error(`ended with ${exit.code ?? exit.signal}\n${output.all}`);
        const check = await startChild(image.healthcheck, options);
        const said = outputOf(check);
        const { code } = await check.closed;
        problem = said.all;
        return code === 0;
      };
      const patience = { ms: HEALTHY_MS, pollMs: 200, progress: () => output.all.length };
      await until(passes, 'the health check passes', patience).catch((error: unknown) => {
        throw error instanceof PatienceError ? new Error(`${error.message}: ${problem}\n${output.all}`) : error;
      });
    },
    async stop() {
      await child.stop(STOP_MS);
      return codeOf(await child.closed);
    },
    ended: async () => codeOf(await child.closed),
    output: () => output.all,
  };
}

function userOf(image: Image): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const [uid, gid = uid] = image.user.split(':').map((part) => USERS[part] ?? Number(part));
  return { uid: uid as number, gid: gid as number };
}
