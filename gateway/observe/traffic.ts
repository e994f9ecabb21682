import { Counter, Histogram, type Registry } from 'prom-client';
import type { Outcome } from './outcomes.ts';

/** Their series begin with the first request, at 0: a share of errors needs both parts. */
const FROM_THE_START = ['ok', 'server_error'] as const satisfies readonly Outcome[];

/** Requests by the backend that was asked last, and by model. */
export interface Traffic {
  /** A request that a backend was chosen for has ended. */
  ended(backend: string, model: string | undefined, outcome: Outcome, seconds: number): void;
  /** A backend has gone, and its series go. */
  forget(backend: string): void;
}

/** `labelOf`: a model's label, whatever a client wrote; there must be few of them. */
export function createTraffic(
  registry: Registry,
  buckets: readonly number[],
  labelOf: (model: string | undefined) => string,
): Traffic {
  const registers = [registry];
  const requests = new Counter({
    name: 'crystalkv_gateway_backend_requests_total',
    help: 'Requests that ended, by the backend that was asked last, the model (other: not a known one) and outcome',
    labelNames: ['backend', 'model', 'outcome'] as const,
    registers,
  });
  const duration = new Histogram({
    name: 'crystalkv_gateway_backend_seconds',
    help: 'From the head of a request to the end of its response, by the backend that was asked last, and model',
    labelNames: ['backend', 'model'] as const,
    buckets: [...buckets],
    registers,
  });
  /** What was counted for each backend, so that it can be forgotten. */
  const series = new Map<string, Map<string, Set<Outcome>>>();

  return {
    ended(backend, named, outcome, seconds) {
      const model = labelOf(named);
      const ofBackend = series.get(backend) ?? new Map<string, Set<Outcome>>();
      const outcomes = ofBackend.get(model) ?? new Set<Outcome>(FROM_THE_START);
      series.set(backend, ofBackend.set(model, outcomes.add(outcome)));
      for (const one of FROM_THE_START) requests.inc({ backend, model, outcome: one }, 0);
      requests.inc({ backend, model, outcome });
      duration.observe({ backend, model }, seconds);
    },
    forget(backend) {
      for (const [model, outcomes] of series.get(backend) ?? []) {
        duration.remove({ backend, model });
        for (const outcome of outcomes) requests.remove({ backend, model, outcome });
      }
      series.delete(backend);
    },
  };
}
