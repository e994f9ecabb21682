import { FAILURE_REASONS } from '../attempts/failure.ts';
import { RETRY_REASONS } from '../attempts/retry.ts';
import type { Metrics } from './metrics.ts';
import type { Outcome } from './outcomes.ts';

/** The series of backends that come and go: no more of them than backends, and none of a backend that has gone. */
export interface BackendSeries {
  /** A backend has come: its counters start at 0. */
  start(backend: string): void;
  /** A request that a backend was chosen for has ended. There must be few values of `model`: see ModelNames. */
  ended(backend: string, model: string, outcome: Outcome, seconds: number): void;
  /** A backend has gone, and its series go. */
  forget(backend: string): void;
}

/** Their series begin with the first request, at 0: a share of errors needs both parts. */
const FROM_THE_START = ['ok', 'server_error'] as const satisfies readonly Outcome[];

export function createBackendSeries(metrics: Metrics): BackendSeries {
  const { failovers, breakerOpened, upstreamErrors, retries, backendRequests, backendSeconds } = metrics;
  /** What was counted for each backend by model, so that it can be forgotten. */
  const counted = new Map<string, Map<string, Set<Outcome>>>();

  return {
    start(backend) {
      failovers.inc({ backend }, 0);
      breakerOpened.inc({ backend }, 0);
      for (const reason of FAILURE_REASONS) upstreamErrors.inc({ backend, reason }, 0);
      for (const reason of RETRY_REASONS) retries.inc({ backend, reason }, 0);
    },
    ended(backend, model, outcome, seconds) {
      const ofBackend = counted.get(backend) ?? new Map<string, Set<Outcome>>();
      const outcomes = ofBackend.get(model) ?? new Set<Outcome>(FROM_THE_START);
      counted.set(backend, ofBackend.set(model, outcomes.add(outcome)));
      for (const one of FROM_THE_START) backendRequests.inc({ backend, model, outcome: one }, 0);
      backendRequests.inc({ backend, model, outcome });
      backendSeconds.observe({ backend, model }, seconds);
    },
    forget(backend) {
      for (const [model, outcomes] of counted.get(backend) ?? []) {
        backendSeconds.remove({ backend, model });
        for (const outcome of outcomes) backendRequests.remove({ backend, model, outcome });
      }
      counted.delete(backend);
      failovers.remove({ backend });
      breakerOpened.remove({ backend });
      for (const reason of FAILURE_REASONS) upstreamErrors.remove({ backend, reason });
      for (const reason of RETRY_REASONS) retries.remove({ backend, reason });
    },
  };
}
