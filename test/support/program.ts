import { fileURLToPath } from 'node:url';
import { type Child, outputOf, startChild } from '../../scripts/child.ts';
import type { Part } from '../../scripts/cluster.ts';
import { until } from '../../scripts/until.ts';

/** What a program takes to start on a busy machine, while it says nothing. */
const START_MS = 60_000;

/** One of the three programs as a process of its own. */
export interface TestProgram {
  child: Child;
  /** All it has printed. */
  output(): string;
  /** What it has logged. */
  log(): Record<string, unknown>[];
  /** The first line of its log with this message. Rejects when it ends without one. */
  logged(message: string): Promise<Record<string, unknown>>;
  /** Resolves with the exit code, or the signal, when all that it printed is there. */
  ended(): Promise<number | string | null>;
}

export interface ProgramOptions {
  /** Its whole environment. */
  env?: Readonly<Record<string, string>>;
  args?: readonly string[];
  /** For Node itself. */
  nodeArgs?: readonly string[];
}

/** Starts a program, which ends with the test. */
export async function startProgram(
  t: { after(end: () => Promise<unknown>): void },
  part: Part,
  { env = {}, args = [], nodeArgs = [] }: ProgramOptions = {},
): Promise<TestProgram> {
  const main = fileURLToPath(new URL(`../../${part}/main.ts`, import.meta.url));
  const child = await startChild([process.execPath, ...nodeArgs, main, ...args], { env });
  t.after(() => child.stop(0));
  const output = outputOf(child);
  const log = () =>
    output.all
      .split('\n')
      .filter((line) => line.startsWith('{') && line.endsWith('}'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  return {
    child,
    output: () => output.all,
    log,
    logged(message) {
      const find = () => {
        const line = log().find(({ msg }) => msg === message);
        if (line === undefined && child.exit() !== undefined) throw new Error(`it ended without it:\n${output.all}`);
        return line;
      };
      return until(find, `${part} says: ${message}`, { ms: START_MS, progress: () => output.all.length });
    },
    async ended() {
      const { code, signal } = await child.closed;
      return code ?? signal;
    },
  };
}
