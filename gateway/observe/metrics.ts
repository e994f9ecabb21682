import type { Registry } from 'prom-client';
import { DENIED_REASONS } from '../attempts/retry.ts';
import { BREAKER_STATES } from '../fleet/breaker.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { OPERATIONS } from '../limits/resilient.ts';
import { ON_FAILURE } from '../redis.ts';
import { ROUTES } from '../routes.ts';
import { THINKING_ENDS } from '../thinking/last-events.ts';
import { ABORT_STAGES, BROKEN_ENDS, REPORT_OUTCOMES, SHED_REASONS, USAGE_SOURCES } from './outcomes.ts';
import { registering } from './registering.ts';

/**
 * Every metric of the gateway, in one place. Label values come from the route table, the configuration and fixed lists
 * only. A counter whose labels are known starts at 0: it can be drawn and alerted on before the first event.
 */

const REQUEST_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
const QUEUE_SECONDS = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
const ADDED_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1];

export type Metrics = ReturnType<typeof createMetrics>;

/** What is counted while requests are served. */
export function createMetrics(registry: Registry) {
  const { counter, histogram } = registering(registry);
  const metrics = {
    requests: counter(
      'crystalkv_gateway_requests_total',
      'Finished requests, by route, status (499: the client left first) and outcome',
      ['route', 'status', 'outcome'],
    ),
    requestSeconds: histogram(
      'crystalkv_gateway_request_seconds',
      'Time from the request headers to the end of the response',
      REQUEST_SECONDS,
      ['route'],
    ),
    firstByteSeconds: histogram(
      'crystalkv_gateway_first_byte_seconds',
      'Time from the request headers to the first byte of the response body from a backend',
      REQUEST_SECONDS,
      ['route'],
    ),
    addedSeconds: histogram(
      'crystalkv_gateway_added_seconds',
      'Time that the gateway adds: from the end of the request body to the first byte sent upstream, for requests that did not queue',
      ADDED_SECONDS,
    ),
    clientAborts: counter(
      'crystalkv_gateway_client_aborts_total',
      'Clients that left before the end of their response, by the stage of their request',
      ['stage'],
    ),
    brokenStreams: counter(
      'crystalkv_gateway_broken_streams_total',
      'Responses that broke off after they had begun, by what the client got: an error event, a reset, or a response that was already complete',
      ['route', 'end'],
    ),
    thinkingStopped: counter(
      'crystalkv_gateway_thinking_stopped_total',
      'Streams that were ended because they thought too long (thinking_limit) or repeated themselves (thinking_loop)',
      ['reason'],
    ),
    queueSeconds: histogram(
      'crystalkv_gateway_queue_seconds',
      'Time that requests waited for a slot at a backend, whatever the result; requests that did not wait are left out',
      QUEUE_SECONDS,
    ),
    shed: counter(
      'crystalkv_gateway_shed_total',
      'Requests that were turned away, by reason: full queue, too long a wait, displaced by a higher priority, a late event loop, or no room for the body',
      ['reason'],
    ),
    upstreamErrors: counter(
      'crystalkv_gateway_upstream_errors_total',
      'Failed attempts on a backend, by reason; a response with an error status is not one',
      ['backend', 'reason'],
    ),
    retries: counter('crystalkv_gateway_retries_total', 'Retries, by the backend that failed and the reason', [
      'backend',
      'reason',
    ]),
    retriesDenied: counter(
      'crystalkv_gateway_retries_denied_total',
      'Requests that could have been retried and were not, by what ruled it out',
      ['reason'],
    ),
    failovers: counter(
      'crystalkv_gateway_failovers_total',
      'Retries that went to another backend, by the backend that failed',
      ['backend'],
    ),
    breakerOpened: counter(
      'crystalkv_gateway_breaker_opened_total',
      'Times that the circuit breaker of a backend opened, or reopened after a failed test',
      ['backend'],
    ),
    backendRequests: counter(
      'crystalkv_gateway_backend_requests_total',
      'Finished requests, by the backend that was asked last, the model (other: unknown) and outcome',
      ['backend', 'model', 'outcome'],
    ),
    backendSeconds: histogram(
      'crystalkv_gateway_backend_seconds',
      'Time from the request headers to the end of the response, by the backend that was asked last and the model',
      REQUEST_SECONDS,
      ['backend', 'model'],
    ),
    dnsLookups: counter(
      'crystalkv_gateway_dns_lookups_total',
      'DNS lookups of the configured names of backends, by result',
      ['name', 'result'],
    ),
    responseIdFailures: counter(
      'crystalkv_gateway_response_id_failures_total',
      'Failures of Redis to store or find the backend of a response; this process remembers its own responses',
    ),
    keyFailures: counter(
      'crystalkv_gateway_key_store_failures_total',
      'Failed reads of the API keys; the keys that were read last stay valid',
    ),
    tokens: counter(
      'crystalkv_gateway_tokens_total',
      'Tokens of requests and responses, by the name of the key, the model (other: unknown) and the direction',
      ['key', 'model', 'direction'],
    ),
    usage: counter(
      'crystalkv_gateway_usage_total',
      'Responses by the source of their token counts: reported, estimated (they broke off or reported none) or none',
      ['source'],
    ),
    cacheReports: counter(
      'crystalkv_gateway_cache_reports_total',
      'Responses whose client asked for a report of the cache, by whether the report came in time: told or missing',
      ['outcome'],
    ),
  };
  for (const stage of ABORT_STAGES) metrics.clientAborts.inc({ stage }, 0);
  for (const reason of DENIED_REASONS) metrics.retriesDenied.inc({ reason }, 0);
  for (const reason of SHED_REASONS) metrics.shed.inc({ reason }, 0);
  for (const reason of THINKING_ENDS) metrics.thinkingStopped.inc({ reason }, 0);
  for (const source of USAGE_SOURCES) metrics.usage.inc({ source }, 0);
  for (const outcome of REPORT_OUTCOMES) metrics.cacheReports.inc({ outcome }, 0);
  for (const { path } of ROUTES) {
    metrics.requests.inc({ route: path, status: '200', outcome: 'ok' }, 0);
    metrics.requests.inc({ route: path, status: '502', outcome: 'server_error' }, 0);
    metrics.requests.inc({ route: path, status: '200', outcome: 'broken' }, 0);
    metrics.requests.inc({ route: path, status: '499', outcome: 'client_abort' }, 0);
    for (const end of BROKEN_ENDS) metrics.brokenStreams.inc({ route: path, end }, 0);
  }
  return metrics;
}

/** What is read when somebody looks. */
export interface State {
  inflight: { readonly size: number };
  admission: { readonly depth: number };
  shedder: { readonly delayMs: number };
  bodyMemory: { readonly held: number };
  fleet: Pick<Fleet, 'all' | 'known'>;
}

/**
 * Gauges of the state. The series of a backend that has gone go with it. Of several worker processes each has a view of
 * its own: the aggregator says what is shown of theirs, where it is not the sum.
 */
export function exposeState(registry: Registry, { inflight, admission, shedder, fleet, bodyMemory }: State): void {
  const { gauge } = registering(registry);
  gauge('crystalkv_gateway_inflight', 'Requests being served', {
    collect: (set) => set({}, inflight.size),
  });
  gauge('crystalkv_gateway_body_bytes', 'Request bodies in memory, of requests whose response has not begun', {
    collect: (set) => set({}, bodyMemory.held),
  });
  gauge('crystalkv_gateway_queue_depth', 'Requests waiting for a slot at a backend', {
    collect: (set) => set({}, admission.depth),
  });
  gauge(
    'crystalkv_gateway_event_loop_delay_seconds',
    'Mean delay of the event loop over the last second, which load shedding goes by; of several workers the largest',
    { aggregator: 'max', collect: (set) => set({}, shedder.delayMs / 1000) },
  );
  gauge('crystalkv_gateway_backend_outstanding', 'Requests sent to a backend and not finished', {
    labelNames: ['backend'],
    collect(set) {
      for (const { url, outstanding } of fleet.known) set({ backend: url }, outstanding);
    },
  });
  gauge('crystalkv_gateway_backend_healthy', '1 unless the health checks of any worker say that the backend is down', {
    aggregator: 'min',
    labelNames: ['backend'],
    collect(set) {
      for (const { url, health } of fleet.all) set({ backend: url }, health.unhealthySince === undefined ? 1 : 0);
    },
  });
  gauge(
    'crystalkv_gateway_breaker_state',
    '1 for the state of the circuit breaker of a backend, 0 for its other states; when workers differ, each of their states is 1',
    {
      aggregator: 'max',
      labelNames: ['backend', 'state'],
      collect(set) {
        for (const { url, breaker } of fleet.all) {
          for (const state of BREAKER_STATES) set({ backend: url, state }, breaker.state === state ? 1 : 0);
        }
      },
    },
  );
  gauge(
    'crystalkv_gateway_backend_kv_free_ratio',
    'Share of free KV blocks of a backend at the last look; only with the balancing rule kv_headroom',
    {
      aggregator: 'average',
      labelNames: ['backend'],
      collect(set) {
        for (const { url, headroom } of fleet.all) {
          if (headroom.kind === 'known') set({ backend: url }, headroom.freeShare);
        }
      },
    },
  );
}

/** With API keys. */
export function createLimitMetrics(registry: Registry) {
  const { counter, gauge } = registering(registry);
  return {
    limited: counter(
      'crystalkv_gateway_limited_total',
      'Requests refused by a limit of their key, by the name of the key and the limit',
      ['key', 'limit'],
    ),
    used: gauge(
      'crystalkv_gateway_limit_used_ratio',
      'Share of a limit that its key had used and reserved at its last request, by the name of the key and the limit; of several workers the largest',
      { aggregator: 'max', labelNames: ['key', 'limit'] },
    ),
  };
}
export type LimitMetrics = ReturnType<typeof createLimitMetrics>;

/** With API keys whose limits are counted in Redis. */
export function createRedisMetrics(registry: Registry) {
  const { counter } = registering(registry);
  const metrics = {
    failures: counter(
      'crystalkv_gateway_redis_failures_total',
      'Redis commands that failed or timed out, by what they were for',
      ['operation'],
    ),
    fallbacks: counter(
      'crystalkv_gateway_limit_fallbacks_total',
      'Requests whose limits were decided without Redis: counted locally, or denied',
      ['outcome'],
    ),
  };
  for (const operation of OPERATIONS) metrics.failures.inc({ operation }, 0);
  for (const outcome of ON_FAILURE) metrics.fallbacks.inc({ outcome }, 0);
  return metrics;
}

export function exposeRedisState(registry: Registry, limiter: { readonly healthy: boolean }): void {
  registering(registry).gauge('crystalkv_gateway_redis_up', '1 while the limits of all workers are counted in Redis', {
    aggregator: 'min',
    collect: (set) => set({}, limiter.healthy ? 1 : 0),
  });
}

/** Of the parent of several worker processes. */
export function createWorkerMetrics(registry: Registry, serving: () => number) {
  const { counter, gauge } = registering(registry);
  gauge('crystalkv_gateway_workers', 'Worker processes that serve', { collect: (set) => set({}, serving()) });
  return {
    restarts: counter(
      'crystalkv_gateway_worker_restarts_total',
      'Worker processes that ended unexpectedly and were replaced',
    ),
  };
}
