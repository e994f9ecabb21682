import type { Made } from '../fleet/response-ids.ts';

/** A worker saw a response being made; its parent passes this on to the others. */
interface ResponseMade {
  ckv: 'made';
  id: string;
  made: Made;
}

/**
 * What the parent tells a worker. Not by signals: Ctrl-C in a terminal, or a service manager, may send them to parent and
 * workers alike, and the second one would end a drain.
 */
export type ToWorker =
  | { ckv: 'stop' }
  | { ckv: 'reload' }
  | ResponseMade
  | { ckv: 'metrics'; id: number; text: string }
  | { ckv: 'metrics_failed'; id: number; message: string };

/** What a worker tells its parent. */
export type ToParent =
  | { ckv: 'ready'; url: string; metricsUrl: string }
  | { ckv: 'failed'; message: string }
  | { ckv: 'metrics?'; id: number }
  | ResponseMade;

/** Other messages share the channel: those of node:cluster and of prom-client. */
export function isOurs<M extends ToWorker | ToParent>(message: unknown): message is M {
  return typeof message === 'object' && message !== null && 'ckv' in message;
}
