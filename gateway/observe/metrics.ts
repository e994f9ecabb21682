import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { FAILURE_REASONS } from '../attempts/failure.ts';
import { DENIED_REASONS, RETRY_REASONS } from '../attempts/retry.ts';
import { ROUTES } from '../routes.ts';
import { ABORT_STAGES, BROKEN_ENDS } from './outcomes.ts';
import { createTraffic } from './traffic.ts';

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];

export type Metrics = ReturnType<typeof createMetrics>;

/** The gateway's metrics. Label values come from the route table, the config and fixed lists only. */
export function createMetrics(
  registry: Registry,
  inflight: () => number,
  modelLabel: (model: string | undefined) => string,
) {
  const registers = [registry];
  const metrics = {
    requests: new Counter({
      name: 'crystalkv_gateway_requests_total',
      help: 'Requests that ended, by route, status (499: the client left first) and outcome',
      labelNames: ['route', 'status', 'outcome'] as const,
      registers,
    }),
    requestSeconds: new Histogram({
      name: 'crystalkv_gateway_request_seconds',
      help: 'From the head of a request to the end of its response',
      labelNames: ['route'] as const,
      buckets: SECONDS,
      registers,
    }),
    firstByteSeconds: new Histogram({
      name: 'crystalkv_gateway_first_byte_seconds',
      help: 'From the head of a request to the first byte of the body that a backend answered',
      labelNames: ['route'] as const,
      buckets: SECONDS,
      registers,
    }),
    addedSeconds: new Histogram({
      name: 'crystalkv_gateway_added_seconds',
      help: 'From the end of a request to its first sending to a backend, where it waited for no place: what the gateway adds',
      buckets: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1],
      registers,
    }),
    upstreamErrors: new Counter({
      name: 'crystalkv_gateway_upstream_errors_total',
      help: 'Failed tries on a backend by reason; an answer with an error status is not one',
      labelNames: ['backend', 'reason'] as const,
      registers,
    }),
    failovers: new Counter({
      name: 'crystalkv_gateway_failovers_total',
      help: 'Requests that were tried on another backend because this one could not be reached',
      labelNames: ['backend'] as const,
      registers,
    }),
    retries: new Counter({
      name: 'crystalkv_gateway_retries_total',
      help: 'Requests that were tried once more, by the backend that failed and why',
      labelNames: ['backend', 'reason'] as const,
      registers,
    }),
    breakerOpened: new Counter({
      name: 'crystalkv_gateway_breaker_opened_total',
      help: 'Times that the circuit breaker of a backend opened, or opened again after a failed test',
      labelNames: ['backend'] as const,
      registers,
    }),
    retriesDenied: new Counter({
      name: 'crystalkv_gateway_retries_denied_total',
      help: 'Requests that could have been tried once more and were not, by what forbade it',
      labelNames: ['reason'] as const,
      registers,
    }),
    dnsLookups: new Counter({
      name: 'crystalkv_gateway_dns_lookups_total',
      help: 'Times that the addresses of a configured name were asked for, by result',
      labelNames: ['name', 'result'] as const,
      registers,
    }),
    responseIdFailures: new Counter({
      name: 'crystalkv_gateway_response_id_failures_total',
      help: 'Times that Redis could not say or keep which backend made a response; this process remembers its own',
      registers,
    }),
    clientAborts: new Counter({
      name: 'crystalkv_gateway_client_aborts_total',
      help: 'Clients that left before the end, by what their request was doing',
      labelNames: ['stage'] as const,
      registers,
    }),
    keyFailures: new Counter({
      name: 'crystalkv_gateway_key_store_failures_total',
      help: 'Reads of the API keys that failed; the keys that were read last stay good',
      registers,
    }),
    brokenStreams: new Counter({
      name: 'crystalkv_gateway_broken_streams_total',
      help: 'Responses that broke off after they had begun, by what the client got: told, reset, or complete before',
      labelNames: ['route', 'end'] as const,
      registers,
    }),
  };
  new Gauge({
    name: 'crystalkv_gateway_inflight',
    help: 'Requests being served',
    registers,
    collect() {
      this.set(inflight());
    },
  });
  // A series that starts at 0 can be drawn and alerted on before the first event.
  for (const stage of ABORT_STAGES) metrics.clientAborts.inc({ stage }, 0);
  for (const reason of DENIED_REASONS) metrics.retriesDenied.inc({ reason }, 0);
  for (const { path } of ROUTES) {
    metrics.requests.inc({ route: path, status: '200', outcome: 'ok' }, 0);
    metrics.requests.inc({ route: path, status: '502', outcome: 'server_error' }, 0);
    metrics.requests.inc({ route: path, status: '200', outcome: 'broken' }, 0);
    metrics.requests.inc({ route: path, status: '499', outcome: 'client_abort' }, 0);
    for (const end of BROKEN_ENDS) metrics.brokenStreams.inc({ route: path, end }, 0);
  }
  const traffic = createTraffic(registry, SECONDS, modelLabel);
  return {
    ...metrics,
    traffic,
    /** A backend has come: its series start. */
    addBackend(backend: string) {
      metrics.failovers.inc({ backend }, 0);
      metrics.breakerOpened.inc({ backend }, 0);
      for (const reason of FAILURE_REASONS) metrics.upstreamErrors.inc({ backend, reason }, 0);
      for (const reason of RETRY_REASONS) metrics.retries.inc({ backend, reason }, 0);
    },
    /** It has gone, and its series go. */
    removeBackend(backend: string) {
      traffic.forget(backend);
      metrics.failovers.remove({ backend });
      metrics.breakerOpened.remove({ backend });
      for (const reason of FAILURE_REASONS) metrics.upstreamErrors.remove({ backend, reason });
      for (const reason of RETRY_REASONS) metrics.retries.remove({ backend, reason });
    },
  };
}
