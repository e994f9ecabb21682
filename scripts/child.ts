import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { within } from '../common/time.ts';

const WATCHDOG = fileURLToPath(new URL('./watchdog.sh', import.meta.url));
/** What children get to end by themselves when this process is gone. */
const ORPHAN_SECONDS = 10;
const GRACE_MS = 10_000;

export interface ProcessExit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/**
 * A program in a process group and session of its own, with all that it starts. Ctrl-C in a terminal reaches the parent
 * alone, which decides how its children end; when the parent is gone, however it ended, they end too.
 */
export interface Child {
  /** For its pipes. */
  readonly process: ChildProcess;
  readonly pid: number;
  /** Never rejects. */
  readonly exited: Promise<ProcessExit>;
  /** As `exited`, when all that it wrote has been read too. What it leaves behind may hold its pipes. */
  readonly closed: Promise<ProcessExit>;
  /** How it ended; undefined while it runs. */
  exit(): ProcessExit | undefined;
  /** To the program alone. Does nothing when it has ended. */
  signal(name: NodeJS.Signals): void;
  /**
   * Asks the program to stop, frozen or not, then ends it by force after `graceMs`; so ends whatever it has left behind.
   * Resolves, however often it is called, with how the program ended.
   */
  stop(graceMs?: number): Promise<ProcessExit>;
}

/** Rejects when the program cannot be started. */
export async function startChild(
  [program = '', ...args]: readonly string[],
  options: Pick<SpawnOptions, 'cwd' | 'env' | 'stdio' | 'uid' | 'gid'> = {},
): Promise<Child> {
  const child = spawn(program, args, { ...options, detached: true });
  await once(child, 'spawn');
  const pid = child.pid as number;
  tell(`add ${pid}`);
  let exit: ProcessExit | undefined;
  let over = false;
  const exited = new Promise<ProcessExit>((resolve) => {
    child.once('exit', (code, signal) => {
      exit = { code, signal };
      // From here on the id may become that of a stranger, but not while the group has members.
      if (!signalGroup(pid, 0)) finish();
      resolve(exit);
    });
  });
  const closed = new Promise<ProcessExit>((resolve) => {
    child.once('close', (code, by) => resolve({ code, signal: by }));
  });
  const finish = () => {
    over = true;
    tell(`drop ${pid}`);
  };
  const signal = (name: NodeJS.Signals) => {
    if (exit === undefined) child.kill(name);
  };
  return {
    process: child,
    pid,
    exited,
    closed,
    exit: () => exit,
    signal,
    async stop(graceMs = GRACE_MS) {
      signal('SIGTERM');
      signal('SIGCONT');
      await within(exited, graceMs);
      if (!over) signalGroup(pid, 'SIGKILL');
      const result = await exited;
      if (!over) finish();
      return result;
    },
  };
}

/** What a child has written to its pipes so far: standard output and error as they come, and standard output alone. */
export interface Output {
  all: string;
  printed: string;
}

/** Reads a child's pipes into an object that grows. */
export function outputOf({ process: { stdout, stderr } }: Child): Readonly<Output> {
  const output: Output = { all: '', printed: '' };
  stdout?.setEncoding('utf8').on('data', (text: string) => {
    output.all += text;
    output.printed += text;
  });
  stderr?.setEncoding('utf8').on('data', (text: string) => {
    output.all += text;
  });
  return output;
}

/** False: nobody is left in the group. */
function signalGroup(group: number, name: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-group, name);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

let watchdog: ChildProcess | undefined;

/** One watchdog for all children, which must not keep this process alive. */
function tell(line: string): void {
  if (watchdog === undefined) {
    watchdog = spawn(WATCHDOG, [`${ORPHAN_SECONDS}`], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
    watchdog.unref();
    watchdog.stdin?.on('error', () => {
      // it was ended itself
    });
    (watchdog.stdin as Socket).unref();
  }
  watchdog.stdin?.write(`${line}\n`);
}
