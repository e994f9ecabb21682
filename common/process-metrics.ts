import { collectDefaultMetrics, type Registry } from 'prom-client';

/** They list every socket at every scrape, which costs milliseconds where there are hundreds of streams. */
const COSTLY = /^nodejs_active_/;

/** prom-client's metrics of a Node process, with its name as a label. Once for each process: they are never taken back. */
export function collectProcessMetrics(register: Registry, service: string): void {
  collectDefaultMetrics({ register, labels: { service } });
  for (const { name } of register.getMetricsAsArray()) if (COSTLY.test(name)) register.removeSingleMetric(name);
}
