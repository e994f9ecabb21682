import { Gauge, type Registry } from 'prom-client';
import type { Fleet } from './fleet.ts';

/** What is read from the fleet when somebody looks. Series of backends that have gone go with them. */
export function registerFleetMetrics(registry: Registry, fleet: Fleet): void {
  new Gauge({
    name: 'crystalkv_gateway_backend_outstanding',
    help: 'Requests sent to a backend and not ended',
    labelNames: ['backend'] as const,
    registers: [registry],
    collect() {
      this.reset();
      for (const { url, outstanding } of fleet.known) this.set({ backend: url }, outstanding);
    },
  });
}
