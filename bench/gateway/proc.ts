import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

/** Clock ticks a second in /proc; Linux has had 100 for user space since there is one. */
const TICKS = 100;

/** What a process and all that it started have used so far. */
export interface Usage {
  /** User and system time. */
  cpuSeconds: number;
  /** Resident memory, shared pages counted in each process. */
  rssBytes: number;
}

/** Of a process and its descendants, from /proc. Those that end meanwhile are left out. */
export function usageOf(pid: number): Usage {
  const usage = { cpuSeconds: 0, rssBytes: 0 };
  for (const member of [pid, ...descendants(pid)]) {
    try {
      const stat = statOf(member);
      usage.cpuSeconds += (Number(stat[11]) + Number(stat[12])) / TICKS;
      usage.rssBytes +=
        1024 * Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${member}/status`, 'utf8'))?.[1] ?? 0);
    } catch {
      // it has ended
    }
  }
  return usage;
}

/**
 * Gives a process a nice value: its own, and that of its session where Linux groups by session, since the former then only
 * counts among the processes of one session. What the process starts in that session later has the same.
 */
export function prefer(nice: number, pid = process.pid): void {
  setPriority(pid, nice);
  const group = `/proc/${pid}/autogroup`;
  if (existsSync(group)) writeFileSync(group, `${nice}`);
}

/** Puts all threads of processes and of what they started into Linux's real-time class, or back. Needs root and chrt. */
export function realTime(on: boolean, pids: readonly number[]): void {
  const policy = on ? ['--rr', '--pid', '1'] : ['--other', '--pid', '0'];
  for (const pid of pids.flatMap((one) => [one, ...descendants(one)])) {
    execFileSync('chrt', ['--all-tasks', ...policy, `${pid}`], { stdio: ['ignore', 'ignore', 'pipe'] });
  }
}

/** A command that starts another in that class. */
export const REAL_TIME = ['chrt', '--rr', '1'] as const;

/** How long threads of that class may run while equals wait, in milliseconds. */
export const realTimeSlice = (): string => readFileSync('/proc/sys/kernel/sched_rr_timeslice_ms', 'utf8').trim();

/** How many cores other programs keep busy now, seen over a second in which this bench does nothing. */
export async function busyCores(): Promise<number> {
  const before = busySeconds();
  const started = performance.now();
  await sleep(1000);
  return (busySeconds() - before) / ((performance.now() - started) / 1000);
}

/** All cores together: user, nice, system, interrupts and what a hypervisor took. */
function busySeconds(): number {
  const [line = ''] = readFileSync('/proc/stat', 'utf8').split('\n');
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = line
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq + steal) / TICKS;
}

function descendants(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const parent = Number(statOf(Number(name))[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    } catch {
      // it has ended
    }
  }
  const found: number[] = [];
  for (let next = [pid]; next.length > 0; ) {
    next = next.flatMap((one) => children.get(one) ?? []);
    found.push(...next);
  }
  return found;
}

/** The fields of /proc/<pid>/stat after the name, which may hold spaces: state, parent, ... */
function statOf(pid: number): string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return text.slice(text.lastIndexOf(')') + 2).split(' ');
}
