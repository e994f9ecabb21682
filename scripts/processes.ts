import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const POLL_MS = 100;
const PROBE_TIMEOUT_MS = 1000;
const LEASH = new URL('./leash.ts', import.meta.url).href;

/** The root of the repository; every program is started there. */
export const ROOT = fileURLToPath(new URL('../', import.meta.url));

/** A TypeScript program to run as a child process. */
export interface ProcessSpec {
  name: string;
  /** The script, relative to the root, and its arguments. */
  args: readonly string[];
  /** The child's whole environment. */
  env: Readonly<Record<string, string | undefined>>;
  /** An existing folder; what the child prints is appended to `<name>.log` in it. */
  logFolder: string;
  /** Answers 2xx once the program can be used. */
  readyUrl: string;
  /** A command to start Node with, such as `['taskset', '-c', '0']`. */
  prefix?: readonly string[];
}

export interface ProcessExit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** A child process. It gets SIGTERM by itself when its parent ends, however that happens. */
export interface RunningProcess {
  readonly name: string;
  readonly pid: number;
  readonly logFile: string;
  readonly readyUrl: string;
  /** Never rejects. */
  readonly exited: Promise<ProcessExit>;
  /** How it ended; undefined while it runs. */
  exit(): ProcessExit | undefined;
  /** The last lines it printed. */
  lastLines(count: number): Promise<string>;
  signal(name: NodeJS.Signals): void;
  /** Asks it to stop, then ends it by force after `graceMs`. Works on a frozen process too. */
  stop(graceMs?: number): Promise<ProcessExit>;
}

/** A child that ended or did not become ready. The message holds its last lines. */
export class ProcessError extends Error {
  override readonly name = 'ProcessError';
}

/**
 * Starts a program in a process group of its own, so that Ctrl-C in a terminal reaches the parent alone and the parent
 * decides how its children end. Rejects with ProcessError when it cannot be started.
 */
export async function startProcess(spec: ProcessSpec): Promise<RunningProcess> {
  const logFile = join(spec.logFolder, `${spec.name}.log`);
  const log = openSync(logFile, 'a');
  const [command = process.execPath, ...args] = [
    ...(spec.prefix ?? []),
    ...[process.execPath, '--import', LEASH],
    ...spec.args,
  ];
  const child = spawn(command, args, {
    cwd: ROOT,
    env: spec.env,
    detached: true,
    stdio: ['ignore', log, log, 'ipc'],
  });
  closeSync(log);
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => reject(new ProcessError(`cannot start ${spec.name}: ${error.message}`)));
  });
  return wrap(spec, child, logFile);
}

function wrap(spec: ProcessSpec, child: ChildProcess, logFile: string): RunningProcess {
  let exit: ProcessExit | undefined;
  const exited = new Promise<ProcessExit>((resolve) => {
    child.once('exit', (code, signal) => {
      exit = { code, signal };
      resolve(exit);
    });
  });
  const signal = (name: NodeJS.Signals) => {
    if (exit === undefined) child.kill(name);
  };
  return {
    name: spec.name,
    pid: child.pid as number,
    logFile,
    readyUrl: spec.readyUrl,
    exited,
    exit: () => exit,
    lastLines: async (count) => (await readFile(logFile, 'utf8')).trimEnd().split('\n').slice(-count).join('\n'),
    signal,
    stop: async (graceMs = 10_000) => {
      signal('SIGTERM');
      signal('SIGCONT');
      const force = setTimeout(() => signal('SIGKILL'), graceMs);
      const result = await exited;
      clearTimeout(force);
      return result;
    },
  };
}

/**
 * Resolves when `readyUrl` answers 2xx. Rejects with ProcessError when the child ends before, when `deadlineMs` passes,
 * or with the signal's reason when it is aborted.
 */
export async function waitUntilReady(child: RunningProcess, deadlineMs: number, signal?: AbortSignal): Promise<void> {
  const deadline = Date.now() + deadlineMs;
  for (;;) {
    signal?.throwIfAborted();
    if (child.exit() !== undefined) throw await describeExit(child);
    if (await answers(child.readyUrl)) return;
    if (Date.now() > deadline) {
      const lines = await child.lastLines(10);
      throw new ProcessError(`${child.name} was not ready within ${deadlineMs} ms (${child.readyUrl}):\n${lines}`);
    }
    await Promise.race([sleep(POLL_MS, undefined, { ref: false }), child.exited]);
  }
}

/** Says how a child ended, with the last lines it printed. */
export async function describeExit(child: RunningProcess): Promise<ProcessError> {
  const exit = child.exit();
  const how = exit?.signal ? `was ended by ${exit.signal}` : `ended with code ${exit?.code ?? 'unknown'}`;
  const lines = await child.lastLines(10);
  return new ProcessError(`${child.name} ${how}; its last lines (all of them: ${child.logFile}):\n${lines}`);
}

async function answers(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}
