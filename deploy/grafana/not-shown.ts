const NODE = 'for a closer look at a Node process; CPU, memory and event-loop delay are shown';
const SINCE_START = 'covers the whole life of the process; panels show the same over a time window, from the counters';
const GEN_AI = "for tools that go by OpenTelemetry's names; panels show the gateway's own, which say more";
const WORKERS = 'only with several workers; a worker that ends is in the log too';

/** Metrics that no panel and no rule reads, and why they are exported all the same. */
export const NOT_SHOWN: Readonly<Record<string, string>> = {
  crystalkv_regret_ratio: SINCE_START,
  crystalkv_missed_mass_ratio: SINCE_START,
  crystalkv_gateway_dns_lookups_total: 'only where backends are found by DNS; failures are in the log too',
  crystalkv_gateway_backend_kv_free_ratio:
    'only with the balancing rule kv_headroom; KV savings shows the pools themselves',
  crystalkv_gateway_body_bytes: 'requests that find no room are turned away, and those are shown',
  crystalkv_log_lines_dropped_total: 'the log says it too, as soon as it can be written again',
  gen_ai_client_token_usage: GEN_AI,
  gen_ai_server_request_duration_seconds: GEN_AI,
  gen_ai_server_time_to_first_token_seconds: GEN_AI,
  crystalkv_gateway_workers: WORKERS,
  crystalkv_gateway_worker_restarts_total: WORKERS,
  process_cpu_user_seconds_total: NODE,
  process_cpu_system_seconds_total: NODE,
  process_start_time_seconds: NODE,
  process_virtual_memory_bytes: NODE,
  process_heap_bytes: NODE,
  process_open_fds: NODE,
  process_max_fds: NODE,
  nodejs_eventloop_lag_seconds: NODE,
  nodejs_eventloop_lag_min_seconds: NODE,
  nodejs_eventloop_lag_max_seconds: NODE,
  nodejs_eventloop_lag_mean_seconds: NODE,
  nodejs_eventloop_lag_stddev_seconds: NODE,
  nodejs_eventloop_lag_p90_seconds: NODE,
  nodejs_heap_size_total_bytes: NODE,
  nodejs_heap_size_used_bytes: NODE,
  nodejs_external_memory_bytes: NODE,
  nodejs_heap_space_size_total_bytes: NODE,
  nodejs_heap_space_size_used_bytes: NODE,
  nodejs_heap_space_size_available_bytes: NODE,
  nodejs_version_info: NODE,
  nodejs_gc_duration_seconds: NODE,
};
