import cluster from 'node:cluster';
import { parseArgs } from 'node:util';
import { createLogger } from '../common/logger.ts';
import { collectProcessMetrics } from '../common/process-metrics.ts';
import { loadProgramConfig, type Program, runProgram } from '../common/program.ts';
import { type GatewayConfig, gatewaySchema, profilesSchema } from './config.ts';
import { createGateway } from './gateway.ts';
import { openTracing } from './observe/open-tracing.ts';
import { readTls } from './tls.ts';
import { startWorkers } from './workers/parent.ts';
import { workerRole } from './workers/worker.ts';

interface Config {
  gateway: GatewayConfig;
  profiles: Record<string, unknown>;
}

/** After the deadline of a drain, for workers to close what is left. */
const GRACE_MS = 5_000;

const sections: Program<Config>['sections'] = {
  gateway: { section: 'gateway', schema: gatewaySchema },
  profiles: { section: 'profiles', schema: profilesSchema },
};

const worker = workerRole();

await runProgram<Config>({
  name: 'gateway',
  summary: 'an OpenAI endpoint in front of one or several servers; reads its configuration again on SIGHUP',
  sections,
  flags: { workers: 'CRYSTALKV_GATEWAY_WORKERS' },
  stopWhen: worker?.stopped,
  check: ({ gateway }) => void readTls(gateway.tls),
  start: (config) => (config.gateway.workers > 1 && cluster.isPrimary ? startParent(config) : startGateway(config)),
});

/** Leaves the work to workers. */
async function startParent({ gateway: config }: Config): Promise<() => Promise<void>> {
  const workers = await startWorkers(config.workers, createLogger('gateway', config.log_level));
  process.on('SIGHUP', workers.reload);
  return () => workers.stop(config.drain_ms + GRACE_MS);
}

async function startGateway({ gateway: config, profiles }: Config): Promise<() => Promise<void>> {
  const logger = createLogger('gateway', config.log_level);
  const tracing = await openTracing(process.env);
  const gateway = await createGateway(config, {
    logger,
    profiles: Object.keys(profiles),
    tracing,
    metricsOf: worker?.metrics,
    responseIdsOf: worker?.responseIds,
  }).catch((error: Error) => {
    worker?.failed(error);
    throw error;
  });
  collectProcessMetrics(gateway.registry, 'gateway');
  const onHangUp = () => {
    try {
      const next = readAgain().gateway;
      gateway.reload(next);
      logger.level = next.log_level;
    } catch (error) {
      logger.error({ reason: (error as Error).message }, 'cannot reload the configuration; the old one stays in use');
    }
  };
  process.on('SIGHUP', onHangUp);
  worker?.ready(gateway.url, gateway.metricsUrl);
  return async () => {
    process.off('SIGHUP', onHangUp);
    await gateway.close();
  };
}

/** The configuration as it is now: the same file and environment as at the start. */
function readAgain(): Config {
  const { values } = parseArgs({ options: { config: { type: 'string' } }, strict: false });
  const file = typeof values['config'] === 'string' ? values['config'] : undefined;
  return loadProgramConfig({ sections }, file, process.env);
}
