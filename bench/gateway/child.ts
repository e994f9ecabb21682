import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { prefer } from './proc.ts';

const POLL_MS = 100;
const STOP_MS = 5_000;
const LAST_LINES = 8;

/** A program that is not ours. */
export interface ChildSpec {
  name: string;
  command: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** Working folder; what the program prints is appended to `<name>.log` in it. */
  folder: string;
  /** Answers 200 once the program can be used. */
  readyUrl: string;
  readyMs: number;
  /** A nice value for it; 0 changes nothing. */
  priority?: number;
}

export interface Child {
  readonly pid: number;
  close(): Promise<void>;
}

/** Resolves when the program is ready. Rejects when it ends before, or is not ready in time; the last lines are named. */
export async function startChild(spec: ChildSpec, signal: AbortSignal): Promise<Child> {
  const { name, folder } = spec;
  const logFile = join(folder, `${name}.log`);
  const log = openSync(logFile, 'a');
  const [command = '', ...args] = spec.command;
  const child = spawn(command, args, {
    cwd: folder,
    env: { ...process.env, ...spec.env },
    stdio: ['ignore', log, log],
    // Ctrl-C reaches the bench alone, which then ends its children.
    detached: true,
  });
  closeSync(log);
  let ended: string | undefined;
  const exit = new Promise<void>((resolve) => {
    child.once('error', (error) => {
      ended = error.message;
      resolve();
    });
    child.once('exit', (code, by) => {
      ended = `it ended (${code ?? by})`;
      resolve();
    });
  });
  const killGroup = (by: NodeJS.Signals) => {
    try {
      process.kill(-(child.pid as number), by);
    } catch {
      // all of it has ended
    }
  };
  const atExit = () => killGroup('SIGKILL');
  process.once('exit', atExit);
  const close = async () => {
    if (ended === undefined) killGroup('SIGTERM');
    await Promise.race([exit, sleep(STOP_MS, undefined, { ref: false })]);
    if (child.pid !== undefined) killGroup('SIGKILL');
    await exit;
    process.off('exit', atExit);
  };
  try {
    if (spec.priority !== undefined && spec.priority !== 0 && child.pid !== undefined) prefer(spec.priority, child.pid);
    await ready(spec, () => ended, signal);
  } catch (error) {
    await close();
    const lines = readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-LAST_LINES);
    throw new Error(`${name}: ${(error as Error).message}; its last lines:\n${lines.join('\n')}`);
  }
  return { pid: child.pid as number, close };
}

async function ready(spec: ChildSpec, ended: () => string | undefined, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + spec.readyMs;
  for (;;) {
    signal.throwIfAborted();
    const why = ended();
    if (why !== undefined) throw new Error(why);
    if (await answers(spec.readyUrl)) return;
    if (performance.now() > deadline) throw new Error(`it was not ready within ${spec.readyMs} ms`);
    await sleep(POLL_MS);
  }
}

async function answers(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(1000) });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

/** What a command printed, without the line end. Rejects with what it said on standard error. */
export async function output(command: readonly string[], signal: AbortSignal): Promise<string> {
  const [program = '', ...args] = command;
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], signal });
  let text = '';
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk;
  });
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk;
  });
  const [code, by] = (await once(child, 'close')) as [number | null, string | null];
  if (code !== 0)
    throw new Error(errors.trim().split('\n').slice(-LAST_LINES).join('\n') || `${program}: ${code ?? by}`);
  return text.trim();
}
