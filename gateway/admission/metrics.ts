import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { LoadShedder } from './shedding.ts';

/** Why a request was turned away before it reached a backend; a metric label. */
export const SHED_REASONS = ['queue_full', 'queue_timeout', 'displaced', 'event_loop'] as const;

export interface AdmissionMetrics {
  queueSeconds: { observe(seconds: number): void };
  shed: { inc(labels: { reason: (typeof SHED_REASONS)[number] }): void };
}

export function createAdmissionMetrics(
  registry: Registry,
  read: { depth: () => number; shedder: Pick<LoadShedder, 'delayMs'> },
): AdmissionMetrics {
  const registers = [registry];
  new Gauge({
    name: 'crystalkv_gateway_queue_depth',
    help: 'Requests that wait for a place at a backend',
    registers,
    collect() {
      this.set(read.depth());
    },
  });
  new Gauge({
    name: 'crystalkv_gateway_event_loop_delay_seconds',
    help: 'Mean delay of the event loop over the last second, by which load is shed; of several workers that of the latest',
    aggregator: 'max',
    registers,
    collect() {
      this.set(read.shedder.delayMs / 1000);
    },
  });
  const shed = new Counter({
    name: 'crystalkv_gateway_shed_total',
    help: 'Requests that were turned away: the queue was full, the wait too long, a higher priority came, or the event loop was late',
    labelNames: ['reason'] as const,
    registers,
  });
  for (const reason of SHED_REASONS) shed.inc({ reason }, 0);
  return {
    queueSeconds: new Histogram({
      name: 'crystalkv_gateway_queue_seconds',
      help: 'How long requests waited for a place, whatever came of it; those that did not wait are not in it',
      buckets: [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300],
      registers,
    }),
    shed,
  };
}
