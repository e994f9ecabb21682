import cluster from 'node:cluster';
import { createLogger } from '../common/logger.ts';
import { collectProcessMetrics } from '../common/process-metrics.ts';
import type { Program, Running } from '../common/program.ts';
import { logRefusedReload } from '../common/reload.ts';
import { type GatewayConfig, gatewaySchema, type ProfilesConfig, profilesSchema } from './config.ts';
import { readPolicyCa } from './fleet/policy-ca.ts';
import { createGateway } from './gateway.ts';
import { checkKeysFile } from './keys/file-store.ts';
import { openTracing } from './observe/open-tracing.ts';
import { readTls } from './tls.ts';
import { startWorkers } from './workers/parent.ts';
import { type WorkerRole, workerRole } from './workers/worker.ts';

interface Config {
  gateway: GatewayConfig;
  profiles: ProfilesConfig;
}

/** After the deadline of a drain, for workers to close what is left. */
const GRACE_MS = 5_000;

/** The gateway as one process, as the parent of several, or as one of them. */
export function gatewayProgram(): Program<Config> {
  const worker = workerRole();
  return {
    name: 'gateway',
    summary: 'OpenAI-compatible endpoint in front of one or more servers',
    sections: {
      gateway: { section: 'gateway', schema: gatewaySchema },
      profiles: { section: 'profiles', schema: profilesSchema },
    },
    flags: { workers: 'CRYSTALKV_GATEWAY_WORKERS' },
    stopWhen: worker?.stopped,
    check({ gateway: { tls, keys, policy_ca } }) {
      readTls(tls);
      if (keys.store === 'file') checkKeysFile(keys.file);
      if (policy_ca !== undefined) readPolicyCa(policy_ca);
    },
    start: (config) =>
      config.gateway.workers > 1 && cluster.isPrimary ? startParent(config) : startGateway(config, worker),
  };
}

/** Leaves the work to workers. */
async function startParent({ gateway: config }: Config): Promise<Running<Config>> {
  const workers = await startWorkers(config.workers, createLogger('gateway', config.log_level));
  return { stop: () => workers.stop(config.drain_ms + GRACE_MS), reload: () => workers.reload() };
}

async function startGateway(
  { gateway: config, profiles }: Config,
  worker: WorkerRole | undefined,
): Promise<Running<Config>> {
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
  worker?.ready(gateway.url, gateway.metricsUrl);
  return {
    stop: () => gateway.close(),
    reload(read) {
      try {
        const next = read();
        gateway.reload(next.gateway, Object.keys(next.profiles));
        logger.level = next.gateway.log_level;
      } catch (error) {
        logRefusedReload(logger, error as Error);
      }
    },
  };
}
