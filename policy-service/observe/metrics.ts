import { Gauge, Histogram, Registry } from 'prom-client';
import { REJECTS } from '../../common/protocol.ts';
import { createCounters, type Ownership, ofEngine, ofEngineBy, ofRequest, ofService } from './counter.ts';
import { BAD_MESSAGE_REASONS, PLAN_OUTCOMES, PROBE_OUTCOMES } from './labels.ts';
import { createRatio } from './ratio.ts';
import { createStateMetrics, type EngineReading } from './state-metrics.ts';

export type Metrics = ReturnType<typeof createMetrics>;

/** Requests in mode `shadow`, and canaries. */
const ofShadowed: typeof ofRequest = {
  ...ofRequest,
  series: (request) => (request.mode === 'shadow' || request.mode === 'canary' ? [request] : []),
};
/** Requests that lose blocks, by the phase in which they do. */
const ofEvicted: Ownership<'request', 'engine' | 'profile' | 'policy' | 'phase'> = {
  owner: 'request',
  labels: ['engine', 'profile', 'policy', 'phase'],
  series: ({ mode, ...labels }) =>
    mode === 'enforce' ? ['thinking', 'answer'].map((phase) => ({ ...labels, phase })) : [],
};
const ofMerged: Ownership<'request', 'engine' | 'policy'> = {
  owner: 'request',
  labels: ['engine', 'policy'],
  series: ({ mode, engine, policy }) => (mode === 'enforce' ? [{ engine, policy }] : []),
};

/** Everything that the service counts. Labels have few values; no metric names a request. */
export function createMetrics(readEngines: () => Iterable<EngineReading>) {
  const registry = new Registry();
  const registers = [registry];
  const { counter, start } = createCounters(registry);
  createStateMetrics(registry, readEngines);

  const metrics = {
    blocksEvicted: counter('blocks_evicted_total', 'KV blocks that engines evicted, or freed by a merge', ofEvicted),
    bytesFreed: counter('bytes_freed_total', 'Bytes of keys and values in the evicted blocks', ofEvicted),
    merges: counter(
      'merges_total',
      'Merges that engines carried out; the blocks that they freed count as evicted',
      ofMerged,
    ),
    finishedRequests: counter(
      'finished_requests_total',
      'Requests that ended by themselves or at their length limit',
      ofRequest,
    ),
    finishedTokens: counter(
      'finished_tokens_total',
      'Tokens that the requests of finished_requests_total generated',
      ofRequest,
    ),
    peakBlocks: counter(
      'peak_blocks_total',
      'Sum over finished_requests_total of the most KV blocks that a request held at a time',
      ofRequest,
    ),
    fullPeakBlocks: counter(
      'full_peak_blocks_total',
      'Sum over finished_requests_total of the most KV blocks that a request would have held with a full cache',
      ofRequest,
    ),
    preemptions: counter(
      'preemptions_total',
      'Requests whose cache an engine dropped because it ran out of blocks',
      ofEngine,
    ),
    plans: counter(
      'plans_total',
      `Plans by outcome: ${PLAN_OUTCOMES.join(', ')}`,
      ofEngineBy('outcome', PLAN_OUTCOMES),
    ),
    rejectedBlocks: counter(
      'rejected_blocks_total',
      'KV blocks that engines refused to evict or to merge',
      ofEngineBy('reason', REJECTS.words),
    ),
    steps: counter('steps_total', 'Engine steps received', ofEngine),
    missedSteps: counter(
      'missed_steps_total',
      'Steps without a decision because the engine had not read its earlier plans; plans that come too late are counted by engines',
      ofEngine,
    ),
    measuredSteps: counter('measured_steps_total', 'Attention measurements used, one per request and step', ofEngine),
    probes: counter(
      'probes_total',
      `Answer probes by outcome: ${PROBE_OUTCOMES.join(', ')}; partial: aborted, but used`,
      ofEngineBy('outcome', PROBE_OUTCOMES),
    ),
    probeTokens: counter('probe_tokens_total', 'Tokens that engines computed for answer probes', ofEngine),
    streamUp: new Gauge({
      name: 'crystalkv_stream_up',
      help: '1 while the engine is attached, 0 after it has left',
      labelNames: ['engine'] as const,
      registers,
    }),
    streams: counter(
      'streams_total',
      'Streams that said hello: accepted, or refused for their protocol version or contents',
      ofService('outcome', ['accepted', 'refused']),
    ),
    decisionSeconds: new Histogram({
      name: 'crystalkv_decision_seconds',
      help: 'Time from the last message of an engine step to its plan',
      labelNames: ['engine'] as const,
      buckets: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5],
      registers,
    }),
    unknownProfiles: counter('unknown_profiles_total', 'Requests that named an unknown profile', {
      owner: 'service',
      labels: [],
      series: () => [{}],
    }),
    badMessages: counter(
      'bad_messages_total',
      'Messages, or parts of messages, that were dropped',
      ofService('reason', BAD_MESSAGE_REASONS),
    ),
    reloads: counter(
      'config_reloads_total',
      'Configuration reloads, applied or refused',
      ofService('outcome', ['applied', 'refused']),
    ),
    shadowEvicted: counter('shadow_evicted_blocks_total', 'KV blocks that shadow mode would have evicted', ofShadowed),
    shadowRegretted: counter(
      'shadow_regretted_blocks_total',
      'KV blocks that shadow mode would have evicted and that a later measured step read; each counts once',
      ofShadowed,
    ),
    shadowSteps: counter(
      'shadow_steps_total',
      'Measurements of shadowed requests that would have lost blocks by then',
      ofShadowed,
    ),
    shadowMissedMass: counter(
      'shadow_missed_mass_total',
      'Sum over shadow_steps_total of the share of attention on blocks that would have been evicted',
      ofShadowed,
    ),
  };
  createRatio(registry, {
    name: 'regret_ratio',
    help: 'Of the blocks that shadow mode would have evicted, the share that a later measured step read',
    above: metrics.shadowRegretted,
    below: metrics.shadowEvicted,
  });
  createRatio(registry, {
    name: 'missed_mass_ratio',
    help: 'Mean share of attention on blocks that shadow mode would have evicted',
    above: metrics.shadowMissedMass,
    below: metrics.shadowSteps,
  });

  start('service', undefined);
  return { registry, start, ...metrics };
}
