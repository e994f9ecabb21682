import { spawn } from 'node:child_process';
import { delimiter, dirname, join } from 'node:path';
import { ROOT } from '../processes.ts';
import { failure, type Note, type Outcome, PASSED } from './outcome.ts';

const MAX_LINES = 200;

export interface CommandResult {
  /** Undefined: it could not be started or was ended by a signal. */
  code: number | undefined;
  /** Standard output and error, as they came. */
  output: string;
  timedOut: boolean;
}

export interface CommandOptions {
  cwd?: string;
  env?: Readonly<Record<string, string>>;
  timeoutMs?: number;
}

/** The environment of everything a test run starts: the pinned Node and the tools of node_modules come first. */
export function toolEnvironment(extra: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const path = [dirname(process.execPath), join(ROOT, 'node_modules/.bin'), process.env['PATH'] ?? ''].join(delimiter);
  return { ...process.env, PATH: path, NO_COLOR: '1', FORCE_COLOR: undefined, ...extra };
}

/** Runs a command to its end; ends it by force after `timeoutMs`. Never rejects. */
export function runCommand(command: string, args: readonly string[], options: CommandOptions = {}) {
  return new Promise<CommandResult>((resolve) => {
    const child = spawn(command, args, {
      cwd: options.cwd ?? ROOT,
      env: toolEnvironment(options.env),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, options.timeoutMs ?? 300_000);
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    child.once('error', (error) => {
      clearTimeout(timer);
      resolve({ code: undefined, output: `${command}: ${error.message}`, timedOut });
    });
    child.once('close', (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? undefined, output, timedOut });
    });
  });
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
