import {
  BytesIEC,
  CountsPerSecond,
  PercentUnit,
  RequestsPerSecond,
  Seconds,
  Short,
} from '@grafana/grafana-foundation-sdk/units';
import { max, min } from '@grafana/promql-builder';
import { type DashboardSpec, servedModels } from './dashboard.ts';
import { chart, figure } from './panel.ts';
import { ofModels, perSecond, type Query, quantile, ratio, series, sumBy } from './query.ts';

const FAILED = { outcome: '~server_error|broken' };
const rated = (metric: string, labels: string[], filters = {}): Query =>
  sumBy(labels, perSecond(series(metric, filters)));
const requests = (labels: string[], filters = {}) => rated('crystalkv_gateway_requests_total', labels, filters);
const node = (metric: string) => series(metric, { service: 'gateway' });
const percentiles = (histogram: string, labels: string[], legend: string) =>
  [0.5, 0.99].map((q) => [quantile(q, series(`${histogram}_bucket`), labels), `${legend} ${q * 100} %`] as const);

export const gateway: DashboardSpec = {
  name: 'gateway',
  title: 'Gateway',
  description: 'What clients get: rate, errors, duration; and how the gateway handles failing backends.',
  variables: servedModels(),
  rows: [
    {
      title: 'At a glance',
      panels: [
        figure({
          title: 'Requests',
          description: 'Finished requests per second.',
          unit: RequestsPerSecond,
          queries: [[requests([]), 'requests']],
        }),
        figure({
          title: 'Errors',
          description:
            'Share of requests that failed through no fault of the client: server errors and broken responses.',
          unit: PercentUnit,
          max: 1,
          badFrom: 0.001,
          queries: [[ratio(requests([], FAILED), requests([])), 'errors']],
        }),
        figure({
          title: 'First byte, 99 %',
          description: 'From the request headers to the first byte of the response.',
          unit: Seconds,
          queries: [[quantile(0.99, series('crystalkv_gateway_first_byte_seconds_bucket')), 'p99']],
        }),
        figure({
          title: 'In flight',
          description: 'Requests being served.',
          unit: Short,
          queries: [[sumBy([], series('crystalkv_gateway_inflight')), 'requests']],
        }),
        figure({
          title: 'Clients that left',
          description: 'Share of requests whose client left before the end.',
          unit: PercentUnit,
          max: 1,
          queries: [[ratio(requests([], { outcome: 'client_abort' }), requests([])), 'share']],
        }),
        figure({
          title: 'Event-loop delay, 99 %',
          description: 'How late the gateway runs its timers. Every byte that passes through waits as long.',
          unit: Seconds,
          badFrom: 0.1,
          queries: [[node('nodejs_eventloop_lag_p99_seconds'), '{{instance}}']],
        }),
      ],
    },
    {
      title: 'Rate, errors, duration',
      panels: [
        chart({
          title: 'Requests by route',
          description: 'Finished requests per second.',
          unit: RequestsPerSecond,
          stack: true,
          queries: [[requests(['route']), '{{route}}']],
        }),
        chart({
          title: 'Requests by outcome',
          description:
            'ok; client_error: 4xx; server_error: 5xx; broken: it broke off after it had started; client_abort: the client left.',
          unit: RequestsPerSecond,
          stack: true,
          queries: [[requests(['outcome']), '{{outcome}}']],
        }),
        chart({
          title: 'Errors by route',
          description: 'Share of requests that failed through no fault of the client. The objective is 0.1 %.',
          unit: PercentUnit,
          max: 1,
          badFrom: 0.001,
          queries: [[ratio(requests(['route'], FAILED), requests(['route'])), '{{route}}']],
        }),
        chart({
          title: 'Status codes',
          description:
            'Responses per second with a status other than 200; 499: the client left before it had an answer.',
          unit: RequestsPerSecond,
          stack: true,
          queries: [[requests(['status'], { status: '~[1345]..|20[1-9]' }), '{{status}}']],
        }),
        chart({
          title: 'Duration by route',
          description:
            'From the request headers to the end of the response. Long answers take long, so look at the time between tokens too.',
          unit: Seconds,
          queries: percentiles('crystalkv_gateway_request_seconds', ['route'], '{{route}}'),
        }),
        chart({
          title: 'Time to first byte by route',
          description: 'From the request headers to the first byte from a backend, queue and retries included.',
          unit: Seconds,
          queries: percentiles('crystalkv_gateway_first_byte_seconds', ['route'], '{{route}}'),
        }),
        chart({
          title: 'Added by the gateway',
          description:
            'From the end of the request body to the first byte sent upstream, for requests that did not queue. Answers pass through as they arrive.',
          unit: Seconds,
          badFrom: 0.05,
          queries: percentiles('crystalkv_gateway_added_seconds', [], 'added'),
        }),
        chart({
          title: 'Time to first token',
          description: 'As the engines measure it, by model: without the gateway.',
          unit: Seconds,
          queries: [0.5, 0.99].map((q) => [
            quantile(q, ofModels('vllm:time_to_first_token_seconds_bucket'), ['model_name']),
            `{{model_name}} ${q * 100} %`,
          ]),
        }),
        chart({
          title: 'Time between tokens',
          description: 'As the engines measure it, by model.',
          unit: Seconds,
          queries: [0.5, 0.99].map((q) => [
            quantile(q, ofModels('vllm:inter_token_latency_seconds_bucket'), ['model_name']),
            `{{model_name}} ${q * 100} %`,
          ]),
        }),
      ],
    },
    {
      title: 'Models and backends',
      panels: [
        chart({
          title: 'Requests by model and backend',
          description: 'Requests per second by the last backend. other: no model, or one that no backend has served.',
          unit: RequestsPerSecond,
          stack: true,
          queries: [[rated('crystalkv_gateway_backend_requests_total', ['model', 'backend']), '{{model}} {{backend}}']],
        }),
        chart({
          title: 'Errors by model and backend',
          description: 'Share of requests that failed through no fault of the client, by the last backend.',
          unit: PercentUnit,
          max: 1,
          badFrom: 0.001,
          queries: [
            [
              ratio(
                rated('crystalkv_gateway_backend_requests_total', ['model', 'backend'], FAILED),
                rated('crystalkv_gateway_backend_requests_total', ['model', 'backend']),
              ),
              '{{model}} {{backend}}',
            ],
          ],
        }),
        chart({
          title: 'Duration by model and backend',
          description: 'From the request headers to the end of the response.',
          unit: Seconds,
          queries: percentiles('crystalkv_gateway_backend_seconds', ['model', 'backend'], '{{model}} {{backend}}'),
        }),
        chart({
          title: 'Breakers',
          description:
            'Breakers that are not closed in some gateway: the backend failed and gets no requests (open), or one as a test (half_open).',
          unit: Short,
          max: 1,
          queries: [
            [
              max(series('crystalkv_gateway_breaker_state', { state: '~open|half_open' })).by(['backend', 'state']),
              '{{backend}} {{state}}',
            ],
          ],
        }),
        chart({
          title: 'Breaker openings',
          description: 'Times per second that the breaker of a backend opened, first or again after a failed test.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_gateway_breaker_opened_total', ['backend']), '{{backend}}']],
        }),
        chart({
          title: 'Healthy backends',
          description: '0: health checks of some gateway say that the backend is down. Requests go elsewhere.',
          unit: Short,
          max: 1,
          queries: [[min(series('crystalkv_gateway_backend_healthy')).by(['backend']), '{{backend}}']],
        }),
        chart({
          title: 'Requests at backends',
          description: 'Sent to a backend and not finished.',
          unit: Short,
          stack: true,
          queries: [[sumBy(['backend'], series('crystalkv_gateway_backend_outstanding')), '{{backend}}']],
        }),
        chart({
          title: 'Failed attempts',
          description:
            'Attempts per second without an answer from the backend, by reason. An answer with an error status is not one.',
          unit: CountsPerSecond,
          queries: [
            [rated('crystalkv_gateway_upstream_errors_total', ['backend', 'reason']), '{{backend}} {{reason}}'],
          ],
        }),
        chart({
          title: 'Retries',
          description: 'Retries per second: on another backend (failover), or by the reason of the failure.',
          unit: CountsPerSecond,
          queries: [
            [rated('crystalkv_gateway_retries_total', ['backend', 'reason']), '{{backend}} {{reason}}'],
            [rated('crystalkv_gateway_failovers_total', ['backend']), 'failover from {{backend}}'],
          ],
        }),
        chart({
          title: 'Denied retries',
          description: 'Retries per second that were not made, by what denied them.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_gateway_retries_denied_total', ['reason']), '{{reason}}']],
        }),
        chart({
          title: 'Broken responses',
          description:
            'Responses per second that broke off after they had started. told: the client got an error event; reset: a broken connection; complete: the client had all of it.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_gateway_broken_streams_total', ['end']), '{{end}}']],
        }),
        chart({
          title: 'Clients that left',
          description: 'Per second, by the stage of their request.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_gateway_client_aborts_total', ['stage']), '{{stage}}']],
        }),
      ],
    },
    {
      title: 'Admission and keys',
      panels: [
        chart({
          title: 'Queue',
          columns: 4,
          description: 'Requests waiting for a slot at a backend. 0 unless a bound is reached (admission.concurrency).',
          unit: Short,
          queries: [[sumBy(['instance'], series('crystalkv_gateway_queue_depth')), '{{instance}}']],
        }),
        chart({
          title: 'Time in the queue',
          columns: 4,
          description: 'How long requests waited for a slot. Requests that did not wait are not counted.',
          unit: Seconds,
          queries: percentiles('crystalkv_gateway_queue_seconds', [], 'waited'),
        }),
        chart({
          title: 'Turned away',
          columns: 4,
          description:
            'Requests per second that were turned away: the queue was full, the wait too long, a higher priority came, or the event loop was late.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_gateway_shed_total', ['reason']), '{{reason}}']],
        }),
        chart({
          title: 'Failures of shared state',
          columns: 4,
          description:
            'Per second. keys: the API keys could not be read; those that were read last stay valid. response ids: Redis could not return or store which backend made a response.',
          unit: CountsPerSecond,
          queries: [
            [rated('crystalkv_gateway_key_store_failures_total', []), 'keys'],
            [rated('crystalkv_gateway_response_id_failures_total', []), 'response ids'],
          ],
        }),
      ],
    },
    {
      title: 'Keys and tokens',
      panels: [
        chart({
          title: 'Keys near their limits',
          description:
            'Share of its limit that a key had used and reserved at its last request; the highest. From 1 on, its requests are refused. Tokens may exceed 1 by what the last request used.',
          unit: PercentUnit,
          badFrom: 0.9,
          queries: [[max(series('crystalkv_gateway_limit_used_ratio')).by(['key', 'limit']), '{{key}} {{limit}}']],
        }),
        chart({
          title: 'Refused by limits, or ended while thinking',
          description:
            'Requests per second that a limit of their key refused; streams whose thinking was too long (thinking_limit) or repeated itself (thinking_loop).',
          unit: CountsPerSecond,
          queries: [
            [rated('crystalkv_gateway_limited_total', ['key', 'limit']), '{{key}} {{limit}}'],
            [rated('crystalkv_gateway_thinking_stopped_total', ['reason']), '{{reason}}'],
          ],
        }),
        chart({
          title: 'Tokens by key and model',
          description: 'Tokens of responses per second, prompts and answers.',
          unit: CountsPerSecond,
          stack: true,
          queries: [
            [rated('crystalkv_gateway_tokens_total', ['key', 'model', 'direction']), '{{key}} {{model}} {{direction}}'],
          ],
        }),
        chart({
          title: 'Where token counts come from',
          description:
            'Responses per second. estimated: the response broke off, or had no usage; none: there was nothing to count.',
          unit: CountsPerSecond,
          stack: true,
          queries: [[rated('crystalkv_gateway_usage_total', ['source']), '{{source}}']],
        }),
        chart({
          title: 'Cache reports',
          description: 'Responses per second whose client asked for a cache report. missing: not known in time.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_gateway_cache_reports_total', ['outcome']), '{{outcome}}']],
        }),
        chart({
          title: 'Redis',
          description:
            'up: 1 while the counters of limits are shared. Failed commands, and requests whose limits were checked without Redis, per second.',
          unit: Short,
          queries: [
            [min(series('crystalkv_gateway_redis_up')).by(['instance']), 'up, {{instance}}'],
            [rated('crystalkv_gateway_redis_failures_total', ['operation']), 'failed {{operation}}'],
            [rated('crystalkv_gateway_limit_fallbacks_total', ['outcome']), 'without it: {{outcome}}'],
          ],
        }),
      ],
    },
    {
      title: 'Process',
      panels: [
        chart({
          title: 'Event-loop delay',
          description:
            'How late the gateway runs its timers, by instance. The mean over a second decides on load shedding.',
          unit: Seconds,
          badFrom: 0.1,
          queries: [
            [sumBy(['instance'], series('crystalkv_gateway_event_loop_delay_seconds')), '{{instance}}, mean'],
            [sumBy(['instance'], node('nodejs_eventloop_lag_p99_seconds')), '{{instance}}, 99 %'],
          ],
        }),
        chart({
          title: 'CPU',
          description: 'Cores in use. A gateway process uses at most one; run several for more.',
          unit: Short,
          queries: [[sumBy(['instance'], perSecond(node('process_cpu_seconds_total'))), '{{instance}}']],
        }),
        chart({
          title: 'Memory',
          description: 'Resident memory of the process.',
          unit: BytesIEC,
          queries: [[sumBy(['instance'], node('process_resident_memory_bytes')), '{{instance}}']],
        }),
      ],
    },
  ],
};
