import { type Logger, pino } from 'pino';
import { type LogOutput, openLogOutput } from './log-output.ts';

export type { Logger };
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

const STANDARD_OUTPUT = 1;

let output: LogOutput | undefined;

/**
 * Structured logs, one JSON object a line on standard output. Never log prompts, tokens or keys.
 *
 * The process' end writes what is left, however it comes, except by SIGKILL: that loses the last 50 ms. A full disk or a
 * reader that does not read loses lines, and holds up nothing else.
 */
export function createLogger(name: string, level: (typeof LOG_LEVELS)[number]): Logger {
  const made = openLogOutput(STANDARD_OUTPUT, (lines) => logger.warn({ lines }, 'log lines were dropped'));
  const logger = pino({ name, level, base: { name, pid: process.pid } }, made);
  process.on('exit', () => made.close());
  output = made;
  return logger;
}

/** Log lines that were lost so far. */
export function lostLines(): number {
  return output?.dropped ?? 0;
}
