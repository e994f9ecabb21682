import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { until } from './harness.ts';

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
  const child = spawn(process.execPath, [...nodeArgs, MAIN, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const out of [child.stdout, child.stderr]) out.on('data', (chunk: Buffer) => (text += chunk.toString()));
  t.after(() => child.kill('SIGKILL'));
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
  );
  return (JSON.parse(line) as { url: string }).url;
}
