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
  description: 'What clients get: rate, errors, duration, and what the gateway does about backends that fail.',
  variables: servedModels(),
  rows: [
    {
      title: 'At a glance',
      panels: [
        figure({
          title: 'Requests',
          description: 'Requests per second that ended.',
          unit: RequestsPerSecond,
          queries: [[requests([]), 'requests']],
        }),
        figure({
          title: 'Errors',
          description: 'Share of requests that failed by no fault of the client: server errors and broken responses.',
          unit: PercentUnit,
          max: 1,
          badFrom: 0.001,
          queries: [[ratio(requests([], FAILED), requests([])), 'errors']],
        }),
        figure({
          title: 'First byte, 99 %',
          description: 'From the head of a request to the first byte of its answer.',
          unit: Seconds,
          queries: [[quantile(0.99, series('crystalkv_gateway_first_byte_seconds_bucket')), 'p99']],
        }),
        figure({
          title: 'In flight',
          description: 'Requests that are being served.',
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
          description: 'How late the gateway runs its timers: every byte that passes waits as long.',
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
          description: 'Requests per second that ended.',
          unit: RequestsPerSecond,
          stack: true,
          queries: [[requests(['route']), '{{route}}']],
        }),
        chart({
          title: 'Requests by outcome',
          description:
            'ok; client_error: 4xx; server_error: 5xx; broken: it broke off after it had begun; client_abort: the client left.',
          unit: RequestsPerSecond,
          stack: true,
          queries: [[requests(['outcome']), '{{outcome}}']],
        }),
        chart({
          title: 'Errors by route',
          description: 'Share of requests that failed by no fault of the client. The objective is 0.1 %.',
          unit: PercentUnit,
          max: 1,
          badFrom: 0.001,
          queries: [[ratio(requests(['route'], FAILED), requests(['route'])), '{{route}}']],
        }),
        chart({
          title: 'Status codes',
          description: 'Responses per second by status other than 200; 499: the client left before it had an answer.',
          unit: RequestsPerSecond,
          stack: true,
          queries: [[requests(['status'], { status: '~[1345]..|20[1-9]' }), '{{status}}']],
        }),
        chart({
          title: 'Duration by route',
          description:
            'From the head of a request to the end of its response. Long answers take long: see the time between tokens too.',
          unit: Seconds,
          queries: percentiles('crystalkv_gateway_request_seconds', ['route'], '{{route}}'),
        }),
        chart({
          title: 'Time to first byte by route',
          description:
            'From the head of a request to the first byte that a backend answered, queue and retries included.',
          unit: Seconds,
          queries: percentiles('crystalkv_gateway_first_byte_seconds', ['route'], '{{route}}'),
        }),
        chart({
          title: 'Added by the gateway',
          description:
            'From the end of a request to its first sending to a backend, where it waited for no place. Answers pass through as they come.',
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
          description:
            'Requests per second that a backend was asked for. other: no model, or one that no backend has answered for.',
          unit: RequestsPerSecond,
          stack: true,
          queries: [[rated('crystalkv_gateway_backend_requests_total', ['model', 'backend']), '{{model}} {{backend}}']],
        }),
        chart({
          title: 'Errors by model and backend',
          description: 'Share of requests that failed by no fault of the client, by the backend that was asked last.',
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
          description: 'From the head of a request to the end of its response.',
          unit: Seconds,
          queries: percentiles('crystalkv_gateway_backend_seconds', ['model', 'backend'], '{{model}} {{backend}}'),
        }),
        chart({
          title: 'Breakers',
          description:
            'Not closed in any gateway: the backend failed, and gets no requests (open) or one to try (half_open).',
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
          title: 'Breakers that opened',
          description: 'Times per second that the breaker of a backend opened, or opened again after a failed test.',
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
          description: 'Sent to a backend and not ended.',
          unit: Short,
          stack: true,
          queries: [[sumBy(['backend'], series('crystalkv_gateway_backend_outstanding')), '{{backend}}']],
        }),
        chart({
          title: 'Failed tries',
          description:
            'Tries per second that a backend did not answer, by reason. An answer with an error status is not one.',
          unit: CountsPerSecond,
          queries: [
            [rated('crystalkv_gateway_upstream_errors_total', ['backend', 'reason']), '{{backend}} {{reason}}'],
          ],
        }),
        chart({
          title: 'Retries',
          description:
            'Requests per second that were tried once more: elsewhere (failover), or by the reason of the failure.',
          unit: CountsPerSecond,
          queries: [
            [rated('crystalkv_gateway_retries_total', ['backend', 'reason']), '{{backend}} {{reason}}'],
            [rated('crystalkv_gateway_failovers_total', ['backend']), 'failover from {{backend}}'],
          ],
        }),
        chart({
          title: 'Retries that were denied',
          description: 'Requests per second that could have been tried once more and were not, by what forbade it.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_gateway_retries_denied_total', ['reason']), '{{reason}}']],
        }),
        chart({
          title: 'Broken responses',
          description:
            'Responses per second that broke off after they had begun. told: the client got an error event; reset: a broken connection; complete: it had all of it.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_gateway_broken_streams_total', ['end']), '{{end}}']],
        }),
        chart({
          title: 'Clients that left',
          description: 'Per second, by what their request was doing.',
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
          description:
            'Requests that wait for a place at a backend. 0 unless backends have a bound (admission.concurrency).',
          unit: Short,
          queries: [[sumBy(['instance'], series('crystalkv_gateway_queue_depth')), '{{instance}}']],
        }),
        chart({
          title: 'Time in the queue',
          columns: 4,
          description: 'How long requests waited for a place; those that did not wait are not in it.',
          unit: Seconds,
          queries: percentiles('crystalkv_gateway_queue_seconds', [], 'waited'),
        }),
        chart({
          title: 'Turned away',
          columns: 4,
          description:
            'Requests per second that got no place: the queue was full, the wait too long, a higher priority came, or the event loop was late.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_gateway_shed_total', ['reason']), '{{reason}}']],
        }),
        chart({
          title: 'Shared state that failed',
          columns: 4,
          description:
            'Per second. keys: reads of the API keys; those that were read last stay good. response ids: Redis could not say or keep which backend made a response.',
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
            'Most of a limit that a key had used and reserved at its last request. From 1 on its requests are refused; tokens may pass it by what the last one took.',
          unit: PercentUnit,
          badFrom: 0.9,
          queries: [[max(series('crystalkv_gateway_limit_used_ratio')).by(['key', 'limit']), '{{key}} {{limit}}']],
        }),
        chart({
          title: 'Refused by limits',
          description: 'Requests per second that a limit of their key refused.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_gateway_limited_total', ['key', 'limit']), '{{key}} {{limit}}']],
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
            'Responses per second. estimated: the response broke off, or the backend told nothing; none: there was nothing to count.',
          unit: CountsPerSecond,
          stack: true,
          queries: [[rated('crystalkv_gateway_usage_total', ['source']), '{{source}}']],
        }),
        chart({
          title: 'Cache reports',
          description: 'Responses per second whose client asked what the cache kept. missing: not known in time.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_gateway_cache_reports_total', ['outcome']), '{{outcome}}']],
        }),
        chart({
          title: 'Redis',
          description:
            'up: 1 while the counters of limits are shared. Failed commands, and requests that were decided without Redis, per second.',
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
          description: 'How late the gateway runs its timers, by instance. By the mean over a second it sheds load.',
          unit: Seconds,
          badFrom: 0.1,
          queries: [
            [sumBy(['instance'], series('crystalkv_gateway_event_loop_delay_seconds')), '{{instance}}, mean'],
            [sumBy(['instance'], node('nodejs_eventloop_lag_p99_seconds')), '{{instance}}, 99 %'],
          ],
        }),
        chart({
          title: 'CPU',
          description: 'Cores in use. One core is all that a gateway can use: run several.',
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
