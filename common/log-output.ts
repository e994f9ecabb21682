import { constants, fstatSync, openSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { isatty } from 'node:tty';

/** Where log lines go. A program never waits for it: lines that it does not take are dropped and counted. */
export interface LogOutput {
  /** A whole line, with its end. Never throws. */
  write(line: string): void;
  /** At the end of the process: waits a moment for a reader that is slow. */
  close(): void;
  /** Lines that nobody will read. */
  readonly dropped: number;
}

/** Lines are written when there are this many bytes of them, and after this time at the latest. */
const TOGETHER_BYTES = 4096;
const FLUSH_MS = 50;
/** More is not kept for a reader that is slow. */
const MAX_KEPT_BYTES = 1024 * 1024;
const CLOSE_MS = 200;
const NEW_LINE = 0x0a;
const NOTHING = Buffer.alloc(0);

/**
 * Writes to a file descriptor. A write for each line took a sixth of the gateway's time under load, so several go
 * together. `onWritable` is called when lines can be written again after some were dropped, with their number.
 */
export function openLogOutput(descriptor: number, onWritable: (dropped: number) => void): LogOutput {
  const fd = withoutWaiting(descriptor);
  let lines: string[] = [];
  let bytes = 0;
  /** What is left of lines that were written in part. */
  let rest: Buffer = NOTHING;
  let dropped = 0;
  let told = 0;
  /** What was written last is part of a line; `lost`: the other part does not come. */
  let line: 'whole' | 'part' | 'lost' = 'whole';

  const drop = () => {
    dropped += lines.length + count(rest);
    lines = [];
    bytes = 0;
    rest = NOTHING;
    if (line === 'part') line = 'lost';
  };
  /** `later`: the reader takes no more at the moment. */
  const flush = (): 'done' | 'later' => {
    while (rest.length > 0 || lines.length > 0) {
      if (rest.length === 0) {
        rest = Buffer.from(lines.join(''));
        lines = [];
        bytes = 0;
      }
      try {
        if (line === 'lost' && writeSync(fd, '\n') > 0) line = 'whole';
        const written = writeSync(fd, rest);
        if (written > 0) line = rest[written - 1] === NEW_LINE ? 'whole' : 'part';
        rest = rest.subarray(written);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return 'later';
        drop();
      }
    }
    return 'done';
  };
  const tell = () => {
    if (dropped === told || rest.length > 0 || lines.length > 0) return;
    const before = told;
    told = dropped;
    onWritable(dropped - before);
    const failed = dropped;
    if (flush() === 'done' && dropped > failed) told = before;
  };

  const timer = setInterval(() => {
    flush();
    tell();
  }, FLUSH_MS);
  timer.unref();

  return {
    write(line) {
      if (rest.length + bytes + line.length > MAX_KEPT_BYTES) {
        dropped++;
        return;
      }
      lines.push(line);
      bytes += line.length;
      if (rest.length === 0 && bytes >= TOGETHER_BYTES) flush();
    },
    close() {
      clearInterval(timer);
      const nobody = new Int32Array(new SharedArrayBuffer(4));
      for (const end = performance.now() + CLOSE_MS; flush() === 'later' && performance.now() < end; ) {
        Atomics.wait(nobody, 0, 0, 5);
      }
    },
    get dropped() {
      return dropped;
    },
  };
}

function count(bytes: Buffer): number {
  let found = 0;
  for (let at = bytes.indexOf(NEW_LINE); at !== -1; at = bytes.indexOf(NEW_LINE, at + 1)) found++;
  return found;
}

/**
 * A descriptor whose writes fail with EAGAIN instead of waiting for a reader. Files need none: they write or fail. A
 * terminal is opened anew, so that nobody else who writes to it is concerned.
 */
function withoutWaiting(fd: number): number {
  try {
    const kind = fstatSync(fd);
    if (kind.isFIFO() || kind.isSocket()) {
      // Node has no other way to say O_NONBLOCK of an open descriptor.
      new Socket({ fd, readable: false, writable: true }).unref();
    } else if (isatty(fd)) {
      return openSync(`/dev/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    }
  } catch {
    // It is written to as it is.
  }
  return fd;
}
