import { isDeepStrictEqual } from 'node:util';
import { loadProgramConfig } from '../common/program.ts';
import { EngineConfig } from '../engine/config.ts';
import { type GatewayConfig, gatewaySchema } from '../gateway/config.ts';
import { type PolicyServiceConfig, policyServiceSchema } from '../policy-service/config.ts';
import type { Addresses } from './cluster.ts';
import { freePorts, portProblem } from './ports.ts';

/** An address that must be free, and how to change it. */
export interface Listener {
  host: string;
  port: number;
  option: string;
  env: string;
}

export interface RunSettings {
  addresses: Addresses;
  listeners: Listener[];
  /** Requests to the gateway need an API key. */
  keys: boolean;
  /** The environment of the three programs: they find each other, also when a port was changed or is 0. */
  env: NodeJS.ProcessEnv;
}

const LOCAL = '127.0.0.1';

/**
 * Where the three programs will listen, from the configuration file and `env`. The engine's policy service and the
 * gateway's backends follow from that, unless they were set to something else. Throws ConfigError.
 */
export async function readSettings(file: string | undefined, env = process.env): Promise<RunSettings> {
  const sections = {
    engine: { section: 'engine', schema: EngineConfig },
    gateway: { section: 'gateway', schema: gatewaySchema },
    service: { section: 'policy_service', schema: policyServiceSchema },
  } as const;
  const config = loadProgramConfig<{ engine: EngineConfig; gateway: GatewayConfig; service: PolicyServiceConfig }>(
    { sections },
    file,
    env,
  );
  const { engine, gateway, service } = config;
  const listeners = [
    listener(engine.host, engine.port, 'engine.port'),
    listener(service.host, service.port, 'policy_service.port'),
    listener(service.metrics_host, service.metrics_port, 'policy_service.metrics_port'),
    listener(gateway.host, gateway.port, 'gateway.port'),
  ] as const;
  const spare = await freePorts(listeners.filter(({ port }) => port === 0).length);
  for (const entry of listeners) if (entry.port === 0) entry.port = spare.pop() as number;

  const [engineAt, policyAt, metricsAt, gatewayAt] = listeners;
  const addresses: Addresses = {
    engineUrl: `http://${reachable(engineAt)}`,
    gatewayUrl: `http://${reachable(gatewayAt)}`,
    policyAddress: reachable(policyAt),
    policyMetricsUrl: `http://${reachable(metricsAt)}`,
  };
  const wired = { ...env };
  for (const entry of listeners) wired[entry.env] = `${entry.port}`;
  const untouched = loadProgramConfig<{ engine: EngineConfig; gateway: GatewayConfig }>({ sections }, '/dev/null', {});
  if (engine.policy_address === untouched.engine.policy_address) {
    wired['CRYSTALKV_POLICY_ADDRESS'] = addresses.policyAddress;
  }
  if (isDeepStrictEqual(gateway.backends, untouched.gateway.backends)) {
    wired['CRYSTALKV_GATEWAY_BACKENDS'] = JSON.stringify([
      { url: addresses.engineUrl, policyAddress: addresses.policyAddress },
    ]);
  }
  return { addresses, listeners: [...listeners], keys: gateway.keys.store !== 'off', env: wired };
}

/** Throws an error that names every port that is taken and the option that changes it. */
export async function checkPorts(listeners: readonly Listener[]): Promise<void> {
  const problems: string[] = [];
  const seen = new Map<number, Listener>();
  for (const entry of listeners) {
    const twin = seen.get(entry.port);
    seen.set(entry.port, entry);
    const problem =
      twin === undefined
        ? await portProblem(entry.host, entry.port)
        : `port ${entry.port} is wanted by ${twin.option} too`;
    if (problem !== undefined) problems.push(`${entry.option}: ${problem}; choose another with ${entry.env}`);
  }
  if (problems.length > 0) throw new Error(`nothing was started\n${problems.map((line) => `  ${line}`).join('\n')}`);
}

function listener(host: string, port: number, option: string): Listener {
  return { host, port, option, env: `CRYSTALKV_${option.replace('.', '_').toUpperCase()}` };
}

/** How programs on this machine reach a listener. */
function reachable({ host, port }: Listener): string {
  if (host === '0.0.0.0') return `${LOCAL}:${port}`;
  if (host === '::') return `[::1]:${port}`;
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
