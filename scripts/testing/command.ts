import { delimiter, dirname, join } from 'node:path';
import { within } from '../../common/time.ts';
import { type Child, outputOf, startChild } from '../child.ts';
import { ROOT } from '../processes.ts';
import { failure, type Note, type Outcome, PASSED } from './outcome.ts';

const MAX_LINES = 200;
const TIMEOUT_MS = 300_000;
/** What a command that is stuck gets to end by itself. */
const GRACE_MS = 5_000;

export interface CommandResult {
  /** Undefined: it could not be started or was ended by a signal. */
  code: number | undefined;
  /** Standard output and error, as they came. */
  output: string;
  /** Standard output alone. */
  printed: string;
  timedOut: boolean;
}

export interface CommandOptions {
  cwd?: string;
  env?: Readonly<Record<string, string>>;
  /** It is ended, by force in the end, when nothing has come of it for so long; default 300,000. */
  timeoutMs?: number;
  /** Whatever changes while the command gets on; by default what it prints. */
  progress?: () => unknown;
  /** Ends it, too. */
  signal?: AbortSignal;
}

/** The environment of everything a test run starts: the pinned Node and the tools of node_modules come first. */
export function toolEnvironment(extra: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const path = [dirname(process.execPath), join(ROOT, 'node_modules/.bin'), process.env['PATH'] ?? ''].join(delimiter);
  // A run of tests within a test is a run of its own.
  const own = { PATH: path, NO_COLOR: '1', FORCE_COLOR: undefined, NODE_TEST_CONTEXT: undefined };
  return { ...process.env, ...own, ...extra };
}

/** Runs a command to its end; nothing that it has started is left then. Never rejects. */
export async function runCommand(
  command: string,
  args: readonly string[],
  { cwd = ROOT, env, timeoutMs = TIMEOUT_MS, progress, signal }: CommandOptions = {},
): Promise<CommandResult> {
  let child: Child;
  try {
    const stdio = ['ignore', 'pipe', 'pipe'] as const;
    child = await startChild([command, ...args], { cwd, env: toolEnvironment(env), stdio: [...stdio] });
  } catch (error) {
    return { code: undefined, output: `${command}: ${(error as Error).message}`, printed: '', timedOut: false };
  }
  const output = outputOf(child);
  const abort = () => void child.stop(GRACE_MS);
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort, { once: true });
  const timedOut = await isStuck(child, timeoutMs, progress ?? (() => output.all.length));
  const { code } = await child.stop(timedOut ? GRACE_MS : 0);
  signal?.removeEventListener('abort', abort);
  await within(child.closed, GRACE_MS);
  return { code: code ?? undefined, output: output.all, printed: output.printed, timedOut };
}

/** Resolves with whether a child stopped getting on before it ended. */
async function isStuck(child: Child, patienceMs: number, progress: () => unknown): Promise<boolean> {
  for (let last = progress(); ; ) {
    if ((await within(child.exited, patienceMs)) !== undefined) return false;
    const now = progress();
    if (now === last) return true;
    last = now;
  }
}

/** A command as one test: it passes when the command ends with 0. */
export async function checkCommand(
  name: string,
  command: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<Outcome> {
  const result = await runCommand(command, args, options);
  if (result.code === 0) return PASSED;
  const how = result.timedOut ? 'did not end in time' : `ended with code ${result.code ?? 'none'}`;
  return failure(name, `${[command, ...args].join(' ')} ${how}\n${lastLines(result.output)}`);
}

export const lastLines = (text: string): string => text.trimEnd().split('\n').slice(-MAX_LINES).join('\n');

export const indent = (note: Note): string => `${note.name}\n${note.detail.replaceAll(/^/gm, '    ')}`;
