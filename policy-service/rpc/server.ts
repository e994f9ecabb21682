import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';
import type { Registry } from 'prom-client';
import { ConfigError } from '../../common/config.ts';
import { listen, metricsHandler } from '../../common/http.ts';
import type { Logger } from '../../common/logger.ts';
import { logRefusedReload, logReload, takeOver } from '../../common/reload.ts';
import { createCalibrationCache } from '../calibration/cache.ts';
import type { CalibrationOptions } from '../calibration/calibrator.ts';
import { type Config, checkExposure, type PolicyServiceConfig, policyServiceSchema, settingsOf } from '../config.ts';
import { createEngines } from '../session/engines.ts';
import { requireToken } from './auth.ts';
import { tolerantService } from './decode.ts';
import { type GrpcListener, listenGrpc } from './grpc-listener.ts';
import { createService } from './service.ts';

const PROTO_FILE = fileURLToPath(new URL('../../proto/crystalkv/v1/policy.proto', import.meta.url));
const SERVICE_NAME = 'crystalkv.v1.KvPolicy';
/** A silent peer is pinged after the first time and gone without an answer within the second; in milliseconds. */
const KEEPALIVE = { 'grpc.keepalive_time_ms': 20_000, 'grpc.keepalive_timeout_ms': 10_000 };

export interface PolicyServer {
  /** host:port of the gRPC listener. */
  address: string;
  port: number;
  metricsUrl: string;
  readonly registry: Registry;
  /**
   * Applies what may change while running: the switch, profiles, limits, what is measured. Throws ConfigError, and
   * changes nothing, when the sections do not fit together.
   */
  reload(config: Config): void;
  /** Reports that the new configuration is invalid; the old one stays in use. */
  reloadFailed(error: Error): void;
  /** Ends streams, timers and sockets. */
  close(): Promise<void>;
}

/** Starts the policy service. Rejects with ConfigError, or with an error that names the address it cannot bind. */
export async function createServer({ config, logger }: { config: Config; logger: Logger }): Promise<PolicyServer> {
  const { service: options } = config;
  checkExposure(options);
  let current = options;
  const settings = { current: settingsOf(config) };
  const credentials = credentialsOf(options);
  const engines = createEngines({ settings, logger, calibration: calibrationOf(options, logger) });
  const service = createService({ engines, settings });

  const server = new Server({
    ...KEEPALIVE,
    ...(options.auth_token === undefined ? {} : { interceptors: [requireToken(options.auth_token)] }),
  });
  server.addService(tolerantService, service.handlers);
  const health = new HealthImplementation({ '': 'SERVING', [SERVICE_NAME]: 'SERVING' });
  health.addToServer(server);
  new ReflectionService(loadSync(PROTO_FILE)).addToServer(server);

  const metrics = await listen(metricsHandler(engines.metrics.registry), options.metrics_host, options.metrics_port);
  let grpc: GrpcListener;
  try {
    grpc = await listenGrpc(server, credentials, options.host, options.port);
  } catch (error) {
    await metrics.close();
    throw error;
  }
  const address = `${hostPart(options.host)}:${grpc.port}`;
  logger.info({ address, metrics: metrics.url, enabled: settings.current.enabled }, 'policy service is ready');

  return {
    address,
    port: grpc.port,
    metricsUrl: metrics.url,
    registry: engines.metrics.registry,
    reload(next) {
      const changed = settingsOf(next);
      const taken = takeOver('policy_service', policyServiceSchema, current, next.service);
      current = taken.config;
      settings.current = changed;
      engines.govern();
      engines.metrics.reloads.inc({ outcome: 'applied' });
      logReload(logger, taken.needRestart, { enabled: changed.enabled, profiles: [...changed.profiles.keys()] });
    },
    reloadFailed(error) {
      engines.metrics.reloads.inc({ outcome: 'refused' });
      logRefusedReload(logger, error);
    },
    async close() {
      health.setStatus('', 'NOT_SERVING');
      health.setStatus(SERVICE_NAME, 'NOT_SERVING');
      service.close();
      engines.close();
      await grpc.close();
      await metrics.close();
    },
  };
}

/** Read at the start only: what an engine measures does not change with the profiles. */
function calibrationOf({ calibration }: PolicyServiceConfig, logger: Logger): CalibrationOptions | undefined {
  if (calibration.mode === 'off') return undefined;
  const { groups, requests, cache_dir } = calibration;
  return { groups, requests, cache: createCalibrationCache(cache_dir, logger) };
}

function credentialsOf({ tls }: PolicyServiceConfig): ServerCredentials {
  if (tls.cert === undefined || tls.key === undefined) return ServerCredentials.createInsecure();
  const ca = tls.client_ca === undefined ? null : readPem('client_ca', tls.client_ca);
  const pair = { cert_chain: readPem('cert', tls.cert), private_key: readPem('key', tls.key) };
  return ServerCredentials.createSsl(ca, [pair], ca !== null);
}

function readPem(option: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new ConfigError(`policy_service.tls.${option} cannot be read: ${(cause as Error).message}`);
  }
}

function hostPart(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}
