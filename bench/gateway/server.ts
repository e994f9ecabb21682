import { type RunningProcess, startProcess, waitUntilReady } from '../../scripts/processes.ts';
import { lastLines, runCommand } from '../../scripts/testing/command.ts';
import { prefer } from './proc.ts';

const READY_MS = 120_000;
/** To install a gateway. */
const COMMAND_MS = 1_800_000;

/** A server of a bench. */
export interface ServerSpec {
  name: string;
  command: readonly string[];
  /** Beside this process' environment. */
  env?: Readonly<Record<string, string>>;
  /** Working folder; what the server prints is appended to `<name>.log` in it. */
  folder: string;
  /** Answers 2xx once the server can be used. */
  readyUrl: string;
  /** A nice value for it; 0 changes nothing. */
  priority?: number;
}

/** Resolves when the server is ready. Rejects, and leaves nothing of it, when it ends before or is not ready in time. */
export async function startServer(
  { name, command, env, folder, readyUrl, priority = 0 }: ServerSpec,
  signal: AbortSignal,
): Promise<RunningProcess> {
  const child = await startProcess({
    ...{ name, command, readyUrl },
    cwd: folder,
    env: { ...process.env, ...env },
    logFolder: folder,
  });
  try {
    if (priority !== 0) prefer(priority, child.pid);
    await waitUntilReady(child, READY_MS, signal);
    return child;
  } catch (error) {
    await child.stop();
    throw error;
  }
}

/** What a command printed on standard output, without the line end. Rejects with its last lines when it failed. */
export async function printedBy([program = '', ...args]: readonly string[], signal: AbortSignal): Promise<string> {
  const result = await runCommand(program, args, { timeoutMs: COMMAND_MS, signal });
  signal.throwIfAborted();
  if (result.code !== 0) throw new Error(lastLines(result.output) || `${program} ended with code ${result.code}`);
  return result.printed.trim();
}
