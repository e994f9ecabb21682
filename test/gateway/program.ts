import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { until } from '../support/until.ts';

/** A process on a busy machine. */
const START_MS = 60_000;
const MAIN = fileURLToPath(new URL('../../gateway/main.ts', import.meta.url));

/** The gateway as a process of its own. */
export interface Program {
  child: ChildProcessByStdio<null, Readable, Readable>;
  output: () => string;
  exit: Promise<number | null>;
}

/** Starts it with exactly this environment; it is ended by force with the test. */
export function run(
  t: TestContext,
  env: Record<string, string>,
  args: string[] = [],
  nodeArgs: string[] = [],
): Program {
  const program = spawnGateway(env, args, nodeArgs);
  t.after(() => program.child.kill('SIGKILL'));
  return program;
}

/** Starts it with exactly this environment; the caller ends it. */
export function spawnGateway(env: Record<string, string>, args: string[] = [], nodeArgs: string[] = []): Program {
  const child = spawn(process.execPath, [...nodeArgs, MAIN, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const out of [child.stdout, child.stderr]) out.on('data', (chunk: Buffer) => (text += chunk.toString()));
  return { child, output: () => text, exit: once(child, 'close').then(([code]) => code as number | null) };
}

/** Its address, once it has said that it listens. */
export async function listening({ output }: Program): Promise<string> {
  const line = await until(
    () =>
      output()
        .split('\n')
        .find((text) => text.includes('"listening"')),
    'it listens',
    { ms: START_MS },
  );
  return (JSON.parse(line) as { url: string }).url;
}
