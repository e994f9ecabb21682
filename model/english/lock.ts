import { readFileSync, rmSync, writeFileSync } from 'node:fs';

const POLL_MS = 200;

/** Does the work while no other process does it. The lock of a process that is gone counts for nothing. */
export function withLock<Result>(file: string, work: () => Result): Result {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  while (!take(file)) {
    if (isFree(file)) rmSync(file, { force: true });
    else Atomics.wait(pause, 0, 0, POLL_MS);
  }
  try {
    return work();
  } finally {
    rmSync(file, { force: true });
  }
}

function take(file: string): boolean {
  try {
    writeFileSync(file, `${process.pid}`, { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Whether the process that took it is gone. */
function isFree(file: string): boolean {
  try {
    process.kill(Number(readFileSync(file, 'utf8')), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}
