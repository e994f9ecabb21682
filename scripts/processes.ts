import { closeSync, openSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Child, startChild } from './child.ts';
import { PatienceError, until } from './until.ts';

const POLL_MS = 50;
const PROBE_TIMEOUT_MS = 1000;
const LAST_LINES = 10;

/** The root of the repository; every program is started there. */
export const ROOT = fileURLToPath(new URL('../', import.meta.url));

/** A server to run as a child process. */
export interface ProcessSpec {
  name: string;
  command: readonly string[];
  /** Default: the root. */
  cwd?: string;
  /** The child's whole environment. */
  env: Readonly<Record<string, string | undefined>>;
  /** An existing folder; what the child prints is appended to `<name>.log` in it. */
  logFolder: string;
  /** Answers 2xx once the program can be used. */
  readyUrl: string;
}

export interface RunningProcess extends Child {
  readonly name: string;
  readonly logFile: string;
  readonly readyUrl: string;
  /** The last lines it printed. */
  lastLines(count: number): Promise<string>;
}

/** A child that ended or did not become ready. The message holds its last lines. */
export class ProcessError extends Error {
  override readonly name = 'ProcessError';
}

/** Rejects with ProcessError when it cannot be started. */
export async function startProcess(spec: ProcessSpec): Promise<RunningProcess> {
  const { name, readyUrl } = spec;
  const logFile = join(spec.logFolder, `${name}.log`);
  const log = openSync(logFile, 'a');
  try {
    const child = await startChild(spec.command, {
      cwd: spec.cwd ?? ROOT,
      env: spec.env,
      stdio: ['ignore', log, log],
    });
    const lastLines = async (count: number) =>
      (await readFile(logFile, 'utf8')).trimEnd().split('\n').slice(-count).join('\n');
    return { ...child, name, logFile, readyUrl, lastLines };
  } catch (error) {
    throw new ProcessError(`cannot start ${name}: ${(error as Error).message}`);
  } finally {
    closeSync(log);
  }
}

/**
 * Resolves when `readyUrl` answers 2xx. Rejects with ProcessError when the child ends before, when it neither answers nor
 * prints anything for `patienceMs`, or with the signal's reason when it is aborted.
 */
export async function waitUntilReady(child: RunningProcess, patienceMs: number, signal?: AbortSignal): Promise<void> {
  const ready = async () => {
    if (child.exit() !== undefined) throw await describeExit(child);
    return answers(child.readyUrl);
  };
  const progress = () => statSync(child.logFile).size;
  try {
    await until(ready, child.readyUrl, { ms: patienceMs, pollMs: POLL_MS, progress, signal });
  } catch (error) {
    if (!(error instanceof PatienceError)) throw error;
    const lines = await child.lastLines(LAST_LINES);
    throw new ProcessError(`${child.name} was not ready within ${patienceMs} ms (${child.readyUrl}):\n${lines}`);
  }
}

/** Says how a child ended, with the last lines it printed. */
export async function describeExit(child: RunningProcess): Promise<ProcessError> {
  const exit = child.exit();
  const how = exit?.signal ? `was ended by ${exit.signal}` : `ended with code ${exit?.code ?? 'unknown'}`;
  const lines = await child.lastLines(LAST_LINES);
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
