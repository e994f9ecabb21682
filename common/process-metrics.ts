import { Counter, collectDefaultMetrics, type Registry } from 'prom-client';
import { lostLines } from './logger.ts';

/** They list every socket at every scrape, which costs milliseconds where there are hundreds of streams. */
const COSTLY = /^nodejs_active_/;

/** prom-client's metrics of a Node process, with its name as a label. Once for each process: they are never taken back. */
export function collectProcessMetrics(register: Registry, service: string): void {
  collectDefaultMetrics({ register, labels: { service } });
  for (const { name } of register.getMetricsAsArray()) if (COSTLY.test(name)) register.removeSingleMetric(name);
  exposeLostLines(register, service);
}

/** How much of this process's log is lost. */
export function exposeLostLines(register: Registry, service?: string): void {
  const labels = service === undefined ? {} : { service };
  const counter: Counter = new Counter({
    name: 'crystalkv_log_lines_dropped_total',
    help: 'Log lines that were dropped because standard output did not take them',
    labelNames: Object.keys(labels),
    registers: [register],
    collect() {
      counter.reset();
      counter.inc(labels, lostLines());
    },
  });
}
