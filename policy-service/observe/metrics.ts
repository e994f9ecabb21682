import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { REJECTS } from '../../common/protocol.ts';
import { BAD_MESSAGE_REASONS, PLAN_OUTCOMES, PROBE_OUTCOMES } from './labels.ts';
import { createStateMetrics, type EngineReading } from './state-metrics.ts';

export type Metrics = ReturnType<typeof createMetrics>;

/** What a request's profile and mode make of its figures. */
const REQUEST = ['engine', 'profile', 'policy', 'mode'] as const;
/** Shadowed requests, whose mode is `shadow` or `canary`. */
const SHADOW = REQUEST;

/** Table of contents of everything the service counts. Labels are few and bounded; no request ids. */
export function createMetrics(readEngines: () => Iterable<EngineReading>) {
  const registry = new Registry();
  const registers = [registry];
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[]) =>
    new Counter({ name: `crystalkv_${name}`, help, labelNames, registers });
  createStateMetrics(registry, readEngines);

  const metrics = {
    blocksEvicted: counter('blocks_evicted_total', 'Blocks that engines reported as evicted or freed by a merge', [
      'engine',
      'profile',
      'policy',
      'phase',
    ]),
    bytesFreed: counter('bytes_freed_total', 'Bytes of keys and values in the evicted blocks', [
      'engine',
      'profile',
      'policy',
      'phase',
    ]),
    merges: counter('merges_total', 'Merges that engines reported; the blocks they freed count as evicted', [
      'engine',
      'policy',
    ]),
    finishedRequests: counter(
      'finished_requests_total',
      'Requests that ended by themselves or at their limit',
      REQUEST,
    ),
    finishedTokens: counter(
      'finished_tokens_total',
      'Tokens that the requests of finished_requests_total generated',
      REQUEST,
    ),
    peakBlocks: counter(
      'peak_blocks_total',
      'Most blocks that each of finished_requests_total held at a time',
      REQUEST,
    ),
    fullPeakBlocks: counter(
      'full_peak_blocks_total',
      'Most blocks that each of finished_requests_total would have held with a full cache',
      REQUEST,
    ),
    preemptions: counter('preemptions_total', 'Requests whose cache an engine threw away for want of blocks', [
      'engine',
    ]),
    plans: counter('plans_total', `Plans by what became of them: ${PLAN_OUTCOMES.join(', ')}`, ['engine', 'outcome']),
    rejectedBlocks: counter('rejected_blocks_total', 'Blocks that engines refused to evict', ['engine', 'reason']),
    steps: counter('steps_total', 'Engine steps received', ['engine']),
    missedSteps: counter(
      'missed_steps_total',
      'Steps for which nothing was decided because the engine did not read its plans; engines count what came too late',
      ['engine'],
    ),
    measuredSteps: counter('measured_steps_total', 'Request steps whose masses were taken in', ['engine']),
    probes: counter('probes_total', `Answer probes: ${PROBE_OUTCOMES.join(', ')}; partial: given up, but used`, [
      'engine',
      'outcome',
    ]),
    probeTokens: counter('probe_tokens_total', 'Tokens that engines computed for answer probes', ['engine']),
    streamUp: new Gauge({
      name: 'crystalkv_stream_up',
      help: '1 while the engine is attached, 0 after it has left',
      labelNames: ['engine'] as const,
      registers,
    }),
    streams: counter('streams_total', 'Streams that said hello: accepted, or refused for their protocol or contents', [
      'outcome',
    ]),
    decisionSeconds: new Histogram({
      name: 'crystalkv_decision_seconds',
      help: "Time from an engine step's last message to its plan",
      labelNames: ['engine'] as const,
      buckets: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5],
      registers,
    }),
    unknownProfiles: counter('unknown_profiles_total', 'Requests that named a profile that does not exist', []),
    badMessages: counter('bad_messages_total', 'Messages or parts of them that were dropped', ['reason']),
    reloads: counter('config_reloads_total', 'Configuration reloads by outcome', ['outcome']),
    shadowEvicted: counter('shadow_evicted_blocks_total', 'Blocks that shadow mode would have evicted', SHADOW),
    shadowRegretted: counter(
      'shadow_regretted_blocks_total',
      'Blocks that shadow mode would have evicted and that a later measured step read, each once',
      SHADOW,
    ),
    shadowSteps: counter('shadow_steps_total', 'Measured steps of shadowed requests with something evicted', SHADOW),
    shadowMissedMass: counter(
      'shadow_missed_mass_total',
      'Sum over shadow_steps_total of the share of attention on blocks that would have been gone',
      SHADOW,
    ),
  };

  const ratio = (
    name: string,
    help: string,
    above: Counter<(typeof SHADOW)[number]>,
    below: Counter<(typeof SHADOW)[number]>,
  ) =>
    new Gauge({
      name: `crystalkv_${name}`,
      help,
      labelNames: SHADOW,
      registers,
      async collect() {
        const key = ({ engine, profile, policy, mode }: Partial<Record<string, string | number>>) =>
          `${engine}\n${profile}\n${policy}\n${mode}`;
        const parts = new Map((await above.get()).values.map(({ labels, value }) => [key(labels), value]));
        for (const { labels, value } of (await below.get()).values) {
          if (value > 0) this.set(labels, (parts.get(key(labels)) ?? 0) / value);
        }
      },
    });
  ratio(
    'regret_ratio',
    'Share of would-be-evicted blocks that a later measured step read, from shadowed requests',
    metrics.shadowRegretted,
    metrics.shadowEvicted,
  );
  ratio(
    'missed_mass_ratio',
    'Mean share of attention on blocks that would have been gone, from shadowed requests',
    metrics.shadowMissedMass,
    metrics.shadowSteps,
  );

  for (const reason of BAD_MESSAGE_REASONS) metrics.badMessages.inc({ reason }, 0);
  for (const outcome of ['accepted', 'refused']) metrics.streams.inc({ outcome }, 0);
  for (const outcome of ['applied', 'refused']) metrics.reloads.inc({ outcome }, 0);
  return { registry, ...metrics };
}

/** Starts the series of an engine at 0, so that they can be drawn and alerted on before the first event. */
export function openEngine(metrics: Metrics, engine: string): void {
  for (const outcome of PLAN_OUTCOMES) metrics.plans.inc({ engine, outcome }, 0);
  for (const outcome of PROBE_OUTCOMES) metrics.probes.inc({ engine, outcome }, 0);
  for (const reason of REJECTS.words) metrics.rejectedBlocks.inc({ engine, reason }, 0);
  for (const one of [metrics.preemptions, metrics.steps, metrics.missedSteps, metrics.measuredSteps])
    one.inc({ engine }, 0);
  metrics.probeTokens.inc({ engine }, 0);
}

/** Starts the series that a request of these labels will add to at 0: a rate needs the value before the first event. */
export function openRequest(metrics: Metrics, labels: Readonly<Record<(typeof REQUEST)[number], string>>): void {
  const { mode, ...evicted } = labels;
  for (const one of [metrics.finishedRequests, metrics.finishedTokens, metrics.peakBlocks, metrics.fullPeakBlocks]) {
    one.inc(labels, 0);
  }
  if (mode === 'shadow' || mode === 'canary') {
    for (const one of [metrics.shadowEvicted, metrics.shadowRegretted, metrics.shadowSteps, metrics.shadowMissedMass]) {
      one.inc(labels, 0);
    }
  } else if (mode === 'enforce') {
    metrics.merges.inc({ engine: labels.engine, policy: labels.policy }, 0);
    for (const phase of ['thinking', 'answer']) {
      metrics.blocksEvicted.inc({ ...evicted, phase }, 0);
      metrics.bytesFreed.inc({ ...evicted, phase }, 0);
    }
  }
}
