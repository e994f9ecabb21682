import { Counter, Histogram, type Registry } from 'prom-client';
import type { Outcome } from '../record.ts';

/** Of requests without a model, with one that no backend has answered for, and of models beyond the bound. */
export const OTHER_MODEL = 'other';
/** Clients name models, and some servers answer to any name: no more than these become labels, nor longer ones. */
const BOUNDS = { models: 64, characters: 128 } as const;

/** Their series begin with the first request, at 0: a share of errors needs both parts. */
const FROM_THE_START = ['ok', 'server_error'] as const satisfies readonly Outcome[];

/** Requests by the backend that was asked last, and by model. */
export interface Traffic {
  /** A request that a backend was chosen for has ended. */
  ended(backend: string, model: string | undefined, outcome: Outcome, seconds: number): void;
  /** A backend has gone, and its series go. */
  forget(backend: string): void;
}

export function createTraffic(registry: Registry, buckets: readonly number[]): Traffic {
  const registers = [registry];
  const requests = new Counter({
    name: 'crystalkv_gateway_backend_requests_total',
    help: 'Requests that ended, by the backend that was asked last, the model (one that some backend has answered for) and outcome',
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
  const models = new Set<string>();
  /** What was counted for each backend, so that it can be forgotten. */
  const series = new Map<string, Map<string, Set<Outcome>>>();

  const labelOf = (model: string | undefined, outcome: Outcome): string => {
    if (model === undefined) return OTHER_MODEL;
    if (models.has(model)) return model;
    if (outcome !== 'ok' || models.size >= BOUNDS.models || model.length > BOUNDS.characters) return OTHER_MODEL;
    models.add(model);
    return model;
  };

  return {
    ended(backend, named, outcome, seconds) {
      const model = labelOf(named, outcome);
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
