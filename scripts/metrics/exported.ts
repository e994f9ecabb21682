import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { z } from 'zod';
import { createLogger } from '../../common/logger.ts';
import { collectProcessMetrics } from '../../common/process-metrics.ts';
import { createMetrics as createEngineMetrics } from '../../engine/http/metrics.ts';
import { gatewaySchema } from '../../gateway/config.ts';
import { createGateway } from '../../gateway/gateway.ts';
import { createWorkerMetrics } from '../../gateway/observe/metrics.ts';
import { createMetrics as createPolicyMetrics } from '../../policy-service/observe/metrics.ts';
import { ROOT } from '../processes.ts';

/** A metric as a program registers it. Histograms go by their base name. */
export interface ExportedMetric {
  name: string;
  type: string;
  labels: readonly string[];
  help: string;
}

export interface Exporter {
  title: string;
  /** Where its `/metrics` is. */
  where: string;
  metrics: readonly ExportedMetric[];
}

/** prom-client's metrics keep their label names, but its types do not say so. */
interface Registered {
  name: string;
  help: string;
  labelNames: readonly string[];
}

const NOWHERE = join(ROOT, 'no-such-keys.json');

const tabulated = z.array(
  z.object({ name: z.string(), type: z.string(), labels: z.array(z.string()), help: z.string() }),
);

function ofRegistry(registry: Registry, common: readonly string[] = []): ExportedMetric[] {
  return registry.getMetricsAsArray().map((metric) => {
    const { name, help, labelNames } = metric as unknown as Registered;
    return { name, type: typeOf(metric), labels: [...new Set([...common, ...labelNames])], help };
  });
}

function typeOf(metric: object): string {
  if (metric instanceof Counter) return 'counter';
  if (metric instanceof Histogram) return 'histogram';
  return metric instanceof Gauge ? 'gauge' : 'summary';
}

/**
 * Every metric of this project, from the code that registers it: the TypeScript parts are asked for their registries,
 * the plugin for its table. Needs Python 3.11 or newer; rejects when it is missing.
 */
export async function exportedMetrics(): Promise<Exporter[]> {
  // with everything on that brings metrics of its own; neither the file nor this Redis has to be there
  const everything = { port: 0, keys: { store: 'file', file: NOWHERE }, redis: { url: 'redis://127.0.0.1:1' } };
  const gateway = await createGateway(gatewaySchema.parse(everything), {
    logger: createLogger('metrics', 'silent'),
    profiles: [],
  });
  const ofGateway = ofRegistry(gateway.registry);
  await gateway.close();
  const ofParent = new Registry();
  createWorkerMetrics(ofParent, () => 0);
  const unread = (): never => {
    throw new Error('nothing is read for a list of names');
  };
  const engine = createEngineMetrics({ info: {} as never, stats: unread }, '');
  const node = new Registry();
  collectProcessMetrics(node, '');
  const table = execFileSync('python3', [join(ROOT, 'vllm-plugin/crystal_kv_vllm/metric_definitions.py')], {
    encoding: 'utf8',
  });
  return [
    {
      title: 'Gateway',
      where: '`/metrics` of the gateway, or the port that `gateway.metrics_port` names',
      metrics: [...ofGateway, ...ofRegistry(ofParent)],
    },
    {
      title: 'Policy service',
      where: '`/metrics` on `policy_service.metrics_port`',
      metrics: ofRegistry(createPolicyMetrics(() => []).registry),
    },
    {
      title: 'Embedded engine',
      where: "`/metrics` of the engine; vLLM's names where vLLM's meaning holds",
      metrics: ofRegistry(engine.registry, ['model_name', 'engine']),
    },
    {
      title: 'vLLM plugin',
      where:
        '`/metrics` on a port of its own, `CRYSTALKV_METRICS_PORT`; names as in the embedded engine where they mean the same',
      metrics: tabulated.parse(JSON.parse(table)),
    },
    {
      title: 'Processes',
      where: 'gateway and policy service, told apart by the label `service`',
      metrics: ofRegistry(node, ['service']),
    },
  ];
}
