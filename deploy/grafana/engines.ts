import { BytesIEC, CountsPerSecond, PercentUnit, Seconds, Short } from '@grafana/grafana-foundation-sdk/units';
import { max, min, mul } from '@grafana/promql-builder';
import { type DashboardSpec, servedModels } from './dashboard.ts';
import { chart, figure } from './panel.ts';
import { ofModels, perSecond, type Query, quantile, ratio, sumBy } from './query.ts';

/** An engine: vLLM and its plugin are two ports, so two instances, of one model and rank. */
const EACH = ['model_name', 'engine', 'instance'];
const LINE = '{{model_name}} {{instance}}';
const now = (metric: string): Query => sumBy(EACH, ofModels(metric));
const rated = (metric: string): Query => sumBy(EACH, perSecond(ofModels(metric)));
const quantiles = (histogram: string) =>
  [0.5, 0.99].map(
    (q) => [quantile(q, ofModels(`${histogram}_bucket`), ['model_name']), `{{model_name}}, ${q * 100} %`] as const,
  );

export const engines: DashboardSpec = {
  name: 'engines',
  title: 'Engines',
  description: "On the left vLLM's own metrics (the embedded engine has the same), on the right the plugin's.",
  variables: servedModels(),
  rows: [
    {
      title: 'At a glance',
      panels: [
        figure({
          title: 'Running',
          description: "vLLM: sequences in the running batch, without the plugin's probes.",
          unit: Short,
          queries: [[sumBy([], ofModels('vllm:num_requests_running')), 'running']],
        }),
        figure({
          title: 'Waiting',
          description: 'vLLM: sequences waiting for memory or for a slot.',
          unit: Short,
          queries: [[sumBy([], ofModels('vllm:num_requests_waiting')), 'waiting']],
        }),
        figure({
          title: 'Fullest cache',
          description: 'vLLM: largest share of KV blocks in use on any engine.',
          unit: PercentUnit,
          max: 1,
          queries: [[max(ofModels('vllm:kv_cache_usage_perc')), 'in use']],
        }),
        figure({
          title: 'Plugins active',
          description: 'Plugin: engines on which it is active. 0: vLLM runs as stock, and the next panel says why.',
          unit: Short,
          badUpTo: 1,
          queries: [[sumBy([], ofModels('crystalkv_engine_plugin_active')), 'active']],
        }),
        figure({
          title: 'Refused features',
          description: 'Plugin: what keeps it inactive, and on how many engines.',
          unit: Short,
          badFrom: 1,
          queries: [[sumBy(['feature'], ofModels('crystalkv_engine_refused')), '{{feature}}']],
        }),
        figure({
          title: 'Worst stream',
          description: 'Plugin: 0 when some engine has no policy service and evicts nothing.',
          unit: Short,
          badUpTo: 1,
          queries: [[min(ofModels('crystalkv_engine_stream_up')), 'up']],
        }),
      ],
    },
    {
      title: 'Memory',
      panels: [
        chart({
          title: 'vLLM: cache in use',
          description: 'Share of the KV blocks in use. Evictions lower it, or let more requests run at the same share.',
          unit: PercentUnit,
          max: 1,
          columns: 2,
          queries: [[now('vllm:kv_cache_usage_perc'), LINE]],
        }),
        chart({
          title: 'Plugin: blocks evicted',
          description:
            'KV blocks evicted per second. With evictions under pressure only, this follows the panel on the left.',
          unit: CountsPerSecond,
          columns: 2,
          queries: [[rated('crystalkv_engine_blocks_evicted_total'), LINE]],
        }),
        chart({
          title: 'vLLM: preemptions',
          description: 'Sequences per second whose cache was discarded because blocks ran out, probes included.',
          unit: CountsPerSecond,
          columns: 2,
          queries: [[rated('vllm:num_preemptions_total'), LINE]],
        }),
        chart({
          title: "Plugin: preemptions of clients' requests",
          description: 'The same without probes.',
          unit: CountsPerSecond,
          columns: 2,
          queries: [[rated('crystalkv_engine_preemptions_total'), LINE]],
        }),
        chart({
          title: 'vLLM: prefix-cache hits',
          description:
            'Share of prompt tokens found in the prefix cache. Requests with evictions publish only their prompts.',
          unit: PercentUnit,
          max: 1,
          columns: 2,
          queries: [[ratio(rated('vllm:prefix_cache_hits_total'), rated('vllm:prefix_cache_queries_total')), LINE]],
        }),
        chart({
          title: 'Plugin: pool',
          description: 'Bytes of all KV blocks, and of the free ones.',
          unit: BytesIEC,
          columns: 2,
          queries: [
            [
              sumBy(EACH, mul(ofModels('crystalkv_engine_kv_blocks'), ofModels('crystalkv_engine_kv_block_bytes'))),
              `pool, ${LINE}`,
            ],
            [
              sumBy(
                EACH,
                mul(ofModels('crystalkv_engine_kv_blocks_free'), ofModels('crystalkv_engine_kv_block_bytes')),
              ),
              `free, ${LINE}`,
            ],
          ],
        }),
      ],
    },
    {
      title: 'Work',
      panels: [
        chart({
          title: 'vLLM: tokens',
          description: 'Prompt and generated tokens per second.',
          unit: CountsPerSecond,
          columns: 2,
          queries: [
            [rated('vllm:generation_tokens_total'), `generated, ${LINE}`],
            [rated('vllm:prompt_tokens_total'), `prompt, ${LINE}`],
          ],
        }),
        chart({
          title: 'Plugin: probe tokens',
          description: 'Tokens per second computed for answer probes, and probes per second.',
          unit: CountsPerSecond,
          columns: 2,
          queries: [
            [rated('crystalkv_engine_probe_tokens_total'), `tokens, ${LINE}`],
            [rated('crystalkv_engine_probes_total'), `probes, ${LINE}`],
          ],
        }),
        chart({
          title: 'vLLM: finished requests',
          description: 'Sequences per second by reason: stop, length, abort.',
          unit: CountsPerSecond,
          stack: true,
          columns: 2,
          queries: [
            [sumBy(['finished_reason'], perSecond(ofModels('vllm:request_success_total'))), '{{finished_reason}}'],
          ],
        }),
        chart({
          title: 'Plugin: steps, and measured rows',
          description:
            'Scheduling steps per second, and their rows whose attention was measured. Measuring costs time.',
          unit: CountsPerSecond,
          columns: 2,
          queries: [
            [rated('crystalkv_engine_steps_total'), `steps, ${LINE}`],
            [rated('crystalkv_engine_measured_rows_total'), `measured, ${LINE}`],
          ],
        }),
      ],
    },
    {
      title: 'Latency, and plans',
      panels: [
        chart({
          title: 'vLLM: time to first token',
          description: 'From the arrival at the engine to the first token.',
          unit: Seconds,
          columns: 2,
          queries: quantiles('vllm:time_to_first_token_seconds'),
        }),
        chart({
          title: 'Plugin: plans',
          description:
            'Plans received per second, steps without the plan they needed, and reports dropped because the stream was slow.',
          unit: CountsPerSecond,
          columns: 2,
          queries: [
            [rated('crystalkv_engine_plans_total'), `plans, ${LINE}`],
            [rated('crystalkv_engine_missed_steps_total'), `missed, ${LINE}`],
            [rated('crystalkv_engine_dropped_reports_total'), `dropped, ${LINE}`],
          ],
        }),
        chart({
          title: 'vLLM: time between tokens',
          description: 'Inter-token latency. It rises when probes or measuring cost too much.',
          unit: Seconds,
          columns: 2,
          queries: quantiles('vllm:inter_token_latency_seconds'),
        }),
        chart({
          title: 'Plugin: rejected blocks by reason',
          description: 'Blocks of plans that were not evicted.',
          unit: CountsPerSecond,
          stack: true,
          columns: 2,
          queries: [[sumBy(['reason'], perSecond(ofModels('crystalkv_engine_rejected_blocks_total'))), '{{reason}}']],
        }),
        chart({
          title: 'vLLM: whole requests',
          description: 'From the arrival at the engine to the last token.',
          unit: Seconds,
          columns: 2,
          queries: quantiles('vllm:e2e_request_latency_seconds'),
        }),
        chart({
          title: 'Plugin: stream up',
          description: '1 while the policy service is connected. Without it nothing is evicted.',
          unit: Short,
          max: 1,
          columns: 2,
          queries: [[sumBy(EACH, ofModels('crystalkv_engine_stream_up')), LINE]],
        }),
        chart({
          title: 'Embedded engine: merges',
          description: 'Merges of KV blocks per second; vLLM has none.',
          unit: CountsPerSecond,
          columns: 2,
          queries: [[rated('crystalkv_engine_merges_total'), LINE]],
        }),
        chart({
          title: 'Embedded engine: clients that left',
          description: 'Requests per second whose client left before the end. vLLM counts them as aborted.',
          unit: CountsPerSecond,
          columns: 2,
          queries: [[rated('crystalkv_engine_client_aborts_total'), LINE]],
        }),
      ],
    },
  ],
};
