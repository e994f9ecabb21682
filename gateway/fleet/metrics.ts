import { Gauge, type Registry } from 'prom-client';
import { BREAKER_STATES } from './breaker.ts';
import type { Fleet } from './fleet.ts';

/**
 * What is read from the fleet when somebody looks. Series of backends that have gone go with them. Each of several worker
 * processes has a view of its own: `aggregator` says what is shown of theirs, where it is not the sum.
 */
export function registerFleetMetrics(registry: Registry, fleet: Fleet): void {
  const registers = [registry];
  new Gauge({
    name: 'crystalkv_gateway_backend_outstanding',
    help: 'Requests sent to a backend and not ended',
    labelNames: ['backend'] as const,
    registers,
    collect() {
      this.reset();
      for (const { url, outstanding } of fleet.known) this.set({ backend: url }, outstanding);
    },
  });
  new Gauge({
    name: 'crystalkv_gateway_backend_healthy',
    help: '1 unless health checks of any worker say that a backend is down',
    aggregator: 'min',
    labelNames: ['backend'] as const,
    registers,
    collect() {
      this.reset();
      for (const { url, health } of fleet.all) {
        this.set({ backend: url }, health.unhealthySince === undefined ? 1 : 0);
      }
    },
  });
  new Gauge({
    name: 'crystalkv_gateway_breaker_state',
    help: '1 for the state of the circuit breaker of a backend, 0 for the others; workers may be in different ones, each of which is 1',
    aggregator: 'max',
    labelNames: ['backend', 'state'] as const,
    registers,
    collect() {
      this.reset();
      for (const { url, breaker } of fleet.all) {
        for (const state of BREAKER_STATES) this.set({ backend: url, state }, breaker.state === state ? 1 : 0);
      }
    },
  });
  new Gauge({
    name: 'crystalkv_gateway_backend_kv_free_ratio',
    help: 'Share of free KV blocks of a backend when it was last asked; only with the balancing rule kv_headroom',
    aggregator: 'average',
    labelNames: ['backend'] as const,
    registers,
    collect() {
      this.reset();
      for (const { url, headroom } of fleet.all) {
        if (headroom.kind === 'known') this.set({ backend: url }, headroom.freeShare);
      }
    },
  });
}
