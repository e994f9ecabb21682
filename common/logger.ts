import { type Logger, pino } from 'pino';

export type { Logger };
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

/** Lines are written when there are this many bytes of them, and after this time at the latest. */
const BUFFER_BYTES = 4096;
const FLUSH_MS = 50;

let output: ReturnType<typeof pino.destination> | undefined;

/**
 * Structured logs, one JSON object a line on standard output. Never log prompts, tokens or keys.
 *
 * A write for each line took a sixth of the gateway's time under load, so several go together. The process' end writes
 * the rest, however it comes, except by SIGKILL: that loses the last 50 ms.
 */
export function createLogger(name: string, level: (typeof LOG_LEVELS)[number]): Logger {
  return pino({ name, level, base: { name, pid: process.pid } }, standardOutput());
}

function standardOutput(): ReturnType<typeof pino.destination> {
  if (output !== undefined) return output;
  const made = pino.destination({ dest: 1, sync: true, minLength: BUFFER_BYTES, periodicFlush: FLUSH_MS });
  process.on('exit', () => made.flushSync());
  output = made;
  return made;
}
