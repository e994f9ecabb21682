import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** What the metrics read from an engine at scrape time. */
export interface EngineReading {
  engine: string;
  pool: { free: number; total: number; waiting: number; running: number };
  requests: readonly {
    phase: string;
    profile: string;
    mode: string;
    resident: number;
    blocks: number;
    cold: boolean;
  }[];
}

export type Metrics = ReturnType<typeof createMetrics>;

/** Table of contents of everything the service counts. Labels are few and bounded; no request ids. */
export function createMetrics(readEngines: () => Iterable<EngineReading>) {
  const registers = [new Registry()];
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[]) =>
    new Counter({ name: `crystalkv_${name}`, help, labelNames, registers });
  /** A gauge whose values are read at scrape time, so that engines that have left do not linger. */
  const state = <L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    read: (gauge: Gauge<L>, engine: EngineReading) => void,
  ) =>
    new Gauge({
      name: `crystalkv_${name}`,
      help,
      labelNames,
      registers,
      collect() {
        this.reset();
        for (const engine of readEngines()) read(this, engine);
      },
    });

  const shadowEvicted = counter('shadow_evicted_blocks_total', 'Blocks that shadow mode would have evicted', [
    'policy',
  ]);
  const shadowRegretted = counter(
    'shadow_regretted_blocks_total',
    'Blocks that shadow mode would have evicted and that a later measured step read, each once',
    ['policy'],
  );
  const shadowSteps = counter('shadow_steps_total', 'Measured steps of shadowed requests with something evicted', [
    'policy',
  ]);
  const shadowMissedMass = counter(
    'shadow_missed_mass_total',
    'Sum over shadow_steps_total of the share of attention on blocks that would have been gone',
    ['policy'],
  );
  const ratio = (name: string, help: string, above: Counter<'policy'>, below: Counter<'policy'>) =>
    new Gauge({
      name: `crystalkv_${name}`,
      help,
      labelNames: ['policy'],
      registers,
      async collect() {
        const parts = new Map((await above.get()).values.map(({ labels, value }) => [labels.policy, value]));
        for (const { labels, value } of (await below.get()).values) {
          if (value > 0) this.set(labels, (parts.get(labels.policy) ?? 0) / value);
        }
      },
    });

  state('blocks_resident', 'KV blocks in the cache', ['engine', 'phase'], (gauge, { engine, requests }) => {
    for (const { phase, resident } of requests) gauge.inc({ engine, phase }, resident);
  });
  state('blocks_full', 'KV blocks that full caches would hold', ['engine', 'phase'], (gauge, { engine, requests }) => {
    for (const { phase, blocks } of requests) gauge.inc({ engine, phase }, blocks);
  });
  state('requests', 'Requests known of', ['engine', 'profile', 'mode'], (gauge, { engine, requests }) => {
    for (const { profile, mode } of requests) gauge.inc({ engine, profile, mode });
  });
  state('cold_requests', 'Requests that are not evicted before their history is known again', ['engine'], (gauge, it) =>
    gauge.set({ engine: it.engine }, it.requests.filter(({ cold }) => cold).length),
  );
  state('pool_blocks', "KV blocks of the engine's pool", ['engine', 'state'], (gauge, { engine, pool }) => {
    gauge.set({ engine, state: 'free' }, pool.free);
    gauge.set({ engine, state: 'used' }, pool.total - pool.free);
  });
  state('pool_requests', 'Requests as the engine counts them', ['engine', 'state'], (gauge, { engine, pool }) => {
    gauge.set({ engine, state: 'running' }, pool.running);
    gauge.set({ engine, state: 'waiting' }, pool.waiting);
  });
  ratio(
    'regret_ratio',
    'Share of would-be-evicted blocks that a later measured step read, from shadowed requests',
    shadowRegretted,
    shadowEvicted,
  );
  ratio(
    'missed_mass_ratio',
    'Mean share of attention on blocks that would have been gone, from shadowed requests',
    shadowMissedMass,
    shadowSteps,
  );

  return {
    registry: registers[0]!,
    blocksEvicted: counter('blocks_evicted_total', 'Blocks that engines reported as evicted or freed by a merge', [
      'engine',
      'policy',
      'phase',
    ]),
    merges: counter('merges_total', 'Merges that engines reported; the blocks they freed count as evicted', [
      'engine',
      'policy',
    ]),
    bytesFreed: counter('bytes_freed_total', 'Bytes of keys and values in the evicted blocks', ['engine']),
    plans: counter('plans_total', 'Plans by what became of them: applied, partial, rejected, stale, lost', [
      'engine',
      'outcome',
    ]),
    rejectedBlocks: counter('rejected_blocks_total', 'Blocks that engines refused to evict', ['engine', 'reason']),
    steps: counter('steps_total', 'Engine steps received', ['engine']),
    missedSteps: counter(
      'missed_steps_total',
      'Steps for which nothing was decided because the engine did not read its plans; engines count what came too late',
      ['engine'],
    ),
    measuredSteps: counter('measured_steps_total', 'Request steps whose masses were taken in', ['engine']),
    probes: counter(
      'probes_total',
      'Answer probes: finished, partial (given up, but used), dropped, no_room, unsupported, unanswered',
      ['engine', 'outcome'],
    ),
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
    shadowEvicted,
    shadowRegretted,
    shadowSteps,
    shadowMissedMass,
  };
}
