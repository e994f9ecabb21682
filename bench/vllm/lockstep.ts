import { startCluster } from '../../scripts/cluster.ts';
import { readMetrics, total } from '../../scripts/metrics/text.ts';
import { freePorts } from '../../scripts/ports.ts';
import { startVllm, type Vllm, type VllmOptions } from './process.ts';
import { attached } from './system.ts';

/** vLLM with the plugin, in lockstep with a policy service. */
export interface LockstepVllm {
  readonly vllm: Vllm;
  readonly policyAddress: string;
  /** The plugin's counters now: `blocks_evicted` and so on. */
  counted(): Promise<(name: string) => number>;
  close(): Promise<void>;
}

/** `config`: of the policy service. */
export async function startLockstepVllm(
  config: Readonly<Record<string, unknown>>,
  options: Omit<VllmOptions, 'name' | 'plugin' | 'logFolder'>,
): Promise<LockstepVllm> {
  const cluster = await startCluster({ config, start: ['policy-service'] });
  const { policyAddress, logFolder } = cluster;
  try {
    const [metricsPort = 0] = await freePorts(1);
    const metricsUrl = `http://127.0.0.1:${metricsPort}`;
    const plugin = { policyAddress, metricsPort, lockstep: true };
    const vllm = await startVllm({ ...options, name: 'vllm', plugin, logFolder });
    await attached(metricsUrl);
    return {
      vllm,
      policyAddress,
      counted: async () => {
        const samples = await readMetrics(`${metricsUrl}/metrics`);
        return (name) => total(samples, `crystalkv_engine_${name}_total`);
      },
      close: async () => {
        await vllm.close();
        await cluster.close();
      },
    };
  } catch (error) {
    await cluster.close();
    throw error;
  }
}
