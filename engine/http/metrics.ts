import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { exposeLostLines } from '../../common/process-metrics.ts';
import { REJECTS } from '../../common/protocol.ts';
import { type Engine, type EngineInfo, type EngineStats, FINISH_REASONS, type FinishReason } from '../types.ts';

/** Times that are measured where responses are made, in seconds. */
export interface LatencyMetrics {
  observeFirstToken(seconds: number): void;
  observeNextToken(seconds: number): void;
  /** The end of a sequence, with the reason that the client sees: `stop` for a stop string. */
  observeEnd(reason: FinishReason, seconds: number): void;
}

export interface EngineMetrics extends LatencyMetrics {
  readonly registry: Registry;
  /** A client left before the end of its response. */
  countClientGone(): void;
}

interface Reading {
  name: string;
  help: string;
  type: 'counter' | 'gauge';
  read(stats: EngineStats, info: EngineInfo): number;
}

/** The engine's counts, read at scrape time. They have vLLM's names where they mean the same. */
const READINGS: readonly Reading[] = [
  gauge('vllm:num_requests_running', 'Sequences in the running batch.', (s) => s.running),
  gauge('vllm:num_requests_waiting', 'Sequences waiting to be scheduled.', (s) => s.waiting),
  gauge('vllm:kv_cache_usage_perc', 'Share of the KV blocks in use, 0 to 1.', (s) =>
    s.totalBlocks === 0 ? 0 : 1 - s.freeBlocks / s.totalBlocks,
  ),
  counter('vllm:num_preemptions_total', 'Preemptions.', (s) => s.preemptions),
  counter('vllm:prompt_tokens_total', 'Prompt tokens.', (s) => s.promptTokens),
  counter('vllm:generation_tokens_total', 'Generated tokens.', (s) => s.generatedTokens),
  counter('vllm:prefix_cache_queries_total', 'Tokens looked up in the prefix cache.', (s) => s.prefixCacheQueries),
  counter('vllm:prefix_cache_hits_total', 'Tokens found in the prefix cache.', (s) => s.prefixCacheHits),
  gauge('crystalkv_engine_kv_blocks_free', 'KV blocks that nobody uses.', (s) => s.freeBlocks),
  gauge('crystalkv_engine_kv_blocks', 'KV blocks in the pool.', (s) => s.totalBlocks),
  gauge('crystalkv_engine_kv_block_bytes', 'Bytes of keys and values in a KV block.', (_, info) => info.blockBytes),
  counter('crystalkv_engine_steps_total', 'Scheduling steps.', (s) => s.step),
  counter('crystalkv_engine_blocks_evicted_total', 'KV blocks evicted or freed by merges.', (s) => s.evictedBlocks),
  counter('crystalkv_engine_preemptions_total', "Preemptions of clients' requests.", (s) => s.preemptions),
  counter('crystalkv_engine_merges_total', 'Merges of KV blocks.', (s) => s.merges),
  counter('crystalkv_engine_probes_total', 'Answer probes.', (s) => s.probes),
  counter('crystalkv_engine_probe_tokens_total', 'Tokens computed for answer probes.', (s) => s.probeTokens),
  counter(
    'crystalkv_engine_measured_rows_total',
    'Sequences of steps whose attention was measured.',
    (s) => s.measuredRows,
  ),
  gauge('crystalkv_engine_stream_up', '1 while the policy service is connected.', (s) => Number(s.policy.connected)),
  counter('crystalkv_engine_plans_total', 'Plans received.', (s) => s.policy.plans),
  counter('crystalkv_engine_missed_steps_total', 'Steps without the plan they needed.', (s) => s.policy.missedSteps),
  counter('crystalkv_engine_dropped_reports_total', 'Reports dropped: slow stream.', (s) => s.policy.droppedReports),
];

const FIRST_TOKEN_BUCKETS = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
];
// vLLM's buckets begin at 10 ms; this engine is faster.
const NEXT_TOKEN_BUCKETS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10,
];
const REQUEST_BUCKETS = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480];

/** The metrics of one engine, in a registry of their own. Labels are those of vLLM: `model_name` and `engine`. */
export function createMetrics(engine: Pick<Engine, 'info' | 'stats'>, modelName: string): EngineMetrics {
  const registry = new Registry();
  registry.setDefaultLabels({ model_name: modelName, engine: '0' });
  const registers = [registry];

  for (const { name, help, type, read } of READINGS) {
    if (type === 'gauge') {
      const metric: Gauge = new Gauge({
        name,
        help,
        registers,
        collect: () => metric.set(read(engine.stats(), engine.info)),
      });
    } else {
      const collect = () => {
        metric.reset();
        metric.inc(read(engine.stats(), engine.info));
      };
      const metric: Counter = new Counter({ name, help, registers, collect });
    }
  }
  exposeLostLines(registry);
  const rejected: Counter<'reason'> = new Counter({
    name: 'crystalkv_engine_rejected_blocks_total',
    help: 'Blocks of plans that were not evicted, by reason.',
    labelNames: ['reason'],
    registers,
    collect: () => {
      rejected.reset();
      for (const reason of REJECTS.words) rejected.inc({ reason }, engine.stats().policy.rejected[reason]);
    },
  });

  const finished = new Counter({
    name: 'vllm:request_success_total',
    help: 'Finished sequences, by reason.',
    labelNames: ['finished_reason'],
    registers,
  });
  for (const reason of FINISH_REASONS) finished.inc({ finished_reason: reason }, 0);
  const firstToken = histogram('vllm:time_to_first_token_seconds', 'Time to first token.', FIRST_TOKEN_BUCKETS);
  const nextToken = histogram('vllm:inter_token_latency_seconds', 'Time between tokens.', NEXT_TOKEN_BUCKETS);
  const request = histogram('vllm:e2e_request_latency_seconds', 'Time to the end of a sequence.', REQUEST_BUCKETS);
  const clientsGone = new Counter({
    name: 'crystalkv_engine_client_aborts_total',
    help: 'Requests whose client left before the end.',
    registers,
  });

  function histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name, help, buckets, registers });
  }

  return {
    registry,
    observeFirstToken: (seconds) => firstToken.observe(seconds),
    observeNextToken: (seconds) => nextToken.observe(seconds),
    observeEnd: (reason, seconds) => {
      finished.inc({ finished_reason: reason });
      request.observe(seconds);
    },
    countClientGone: () => clientsGone.inc(),
  };
}

function gauge(name: string, help: string, read: Reading['read']): Reading {
  return { name, help, type: 'gauge', read };
}

function counter(name: string, help: string, read: Reading['read']): Reading {
  return { name, help, type: 'counter', read };
}
