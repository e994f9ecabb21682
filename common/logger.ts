import { type Logger, pino } from 'pino';

export type { Logger };
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

/** Structured logs, one JSON object a line on standard output. Never log prompts, tokens or keys. */
export function createLogger(name: string, level: (typeof LOG_LEVELS)[number]): Logger {
  return pino({ name, level, base: { name, pid: process.pid } });
}
