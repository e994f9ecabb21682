import { startProgram, type TestProgram } from '../support/program.ts';

/** Starts the gateway as a process of its own, with exactly this environment; it ends with the test. */
export function run(
  t: { after(end: () => Promise<unknown>): void },
  env: Readonly<Record<string, string>>,
  args: readonly string[] = [],
  nodeArgs: readonly string[] = [],
): Promise<TestProgram> {
  return startProgram(t, 'gateway', { env, args, nodeArgs });
}

/** Its address, once it has said that it listens. */
export async function listening(program: TestProgram): Promise<string> {
  return String((await program.logged('listening'))['url']);
}
