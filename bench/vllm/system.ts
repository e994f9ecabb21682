import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { readMetrics, type Sample, total } from '../../scripts/metrics/text.ts';
import { freePorts } from '../../scripts/ports.ts';
import { until } from '../../scripts/until.ts';
import { startVllm, type Vllm, type VllmOptions } from './process.ts';

const ATTACH_MS = 30_000;

/** Where things run: vLLM on the last core, all of it; the policy service on another. Undefined: one core only. */
export const CORES = availableParallelism() < 2 ? undefined : { vllm: availableParallelism() - 1, policy: 0 };

/** What the plugin counted. */
export interface PluginCounts {
  evictedBlocks: number;
  probes: number;
  probeTokens: number;
  measuredRows: number;
  missedSteps: number;
  droppedReports: number;
}

const COUNTERS = {
  evictedBlocks: 'blocks_evicted',
  probes: 'probes',
  probeTokens: 'probe_tokens',
  measuredRows: 'measured_rows',
  missedSteps: 'missed_steps',
  droppedReports: 'dropped_reports',
} as const;

export interface PluginVllm extends Vllm {
  /** Counts since the start. */
  counts(): Promise<PluginCounts>;
}

/** Stock vLLM and vLLM with the plugin, alike otherwise, one of them computing at a time. */
export interface Arms {
  stock: Vllm;
  plugin: PluginVllm;
  close(): Promise<void>;
}

/** The policy service, and pairs of engines. */
export interface System {
  readonly policyAddress: string;
  /** Both start at the same time. */
  startArms(
    options: Pick<VllmOptions, 'python' | 'model' | 'tokenizer' | 'poolBlocks' | 'maxModelLen' | 'name'>,
  ): Promise<Arms>;
  /** Engines measure at every n-th decode step from now on; undefined: as shipped. */
  measureEvery(steps: number | undefined): Promise<void>;
  close(): Promise<void>;
}

export async function startSystem(): Promise<System> {
  const cluster = await startCluster({
    start: ['policy-service'],
    config: { policy_service: { log_level: 'warn' } },
    ...(CORES === undefined ? {} : { prefix: { 'policy-service': ['taskset', '-c', `${CORES.policy}`] } }),
  });
  return {
    policyAddress: cluster.policyAddress,
    startArms: async ({ name, ...engine }) => {
      const [metricsPort = 0] = await freePorts(1);
      const common = { ...engine, core: CORES?.vllm, logFolder: cluster.logFolder };
      const starting = [
        startVllm({ ...common, name: `${name}-stock`, plugin: undefined }),
        startVllm({ ...common, name: `${name}-plugin`, plugin: { policyAddress: cluster.policyAddress, metricsPort } }),
      ] as const;
      const close = async () => {
        const settled = await Promise.allSettled(starting);
        await Promise.all(settled.map((it) => (it.status === 'fulfilled' ? it.value.close() : undefined)));
      };
      try {
        const [stock, plugin] = await Promise.all(starting);
        const url = `http://127.0.0.1:${metricsPort}`;
        await attached(url);
        return {
          stock,
          plugin: { ...plugin, counts: async () => countsOf(await readMetrics(`${url}/metrics`)) },
          close,
        };
      } catch (error) {
        await close();
        throw error;
      }
    },
    measureEvery: (steps) => configure(cluster, steps),
    close: () => cluster.close(),
  };
}

async function configure(cluster: Cluster, steps: number | undefined): Promise<void> {
  const every = steps === undefined ? {} : { measure_every: steps, measure_every_idle: steps };
  const config = { policy_service: { log_level: 'warn', ...every } };
  writeFileSync(join(cluster.logFolder, 'crystal-kv.yaml'), stringify(config));
  cluster.part('policy-service').signal('SIGHUP');
  // the plugin takes it at a step that it cannot be asked for
  await sleep(1000);
}

export async function attached(url: string): Promise<void> {
  const up = async () => total(await readMetrics(`${url}/metrics`), 'crystalkv_engine_stream_up') === 1;
  await until(up, 'vLLM attaches to the policy service', { ms: ATTACH_MS, pollMs: 100 });
}

function countsOf(samples: readonly Sample[]): PluginCounts {
  const count = (name: string) => total(samples, `crystalkv_engine_${name}_total`);
  return Object.fromEntries(
    Object.entries(COUNTERS).map(([key, name]) => [key, count(name)]),
  ) as unknown as PluginCounts;
}
