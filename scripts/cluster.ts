import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { readMetrics } from './metrics/text.ts';
import { freePorts } from './ports.ts';
import { type ProcessSpec, type RunningProcess, startProcess, waitUntilReady } from './processes.ts';
import { until } from './until.ts';

/** The three programs, in the order in which they are started; they stop in the opposite order. */
export const PARTS = ['policy-service', 'engine', 'gateway'] as const;
export type Part = (typeof PARTS)[number];

/** Where the programs listen: `http://host:port`, and `host:port` for gRPC. */
export interface Addresses {
  engineUrl: string;
  gatewayUrl: string;
  policyAddress: string;
  policyMetricsUrl: string;
}

/** How to start a part that listens where `addresses` says. */
export function partSpec(
  part: Part,
  addresses: Addresses,
  options: Pick<ProcessSpec, 'env' | 'logFolder'> & {
    configFile: string | undefined;
    prefix?: readonly string[] | undefined;
  },
): ProcessSpec {
  const ready = {
    engine: `${addresses.engineUrl}/health`,
    gateway: `${addresses.gatewayUrl}/ready`,
    'policy-service': `${addresses.policyMetricsUrl}/health`,
  };
  return {
    name: part,
    command: [
      ...(options.prefix ?? []),
      process.execPath,
      `${part}/main.ts`,
      ...(options.configFile === undefined ? [] : ['--config', options.configFile]),
    ],
    env: options.env,
    logFolder: options.logFolder,
    readyUrl: ready[part],
  };
}

export interface ClusterOptions {
  /** What crystal-kv.yaml would hold, without addresses. */
  config?: Readonly<Record<string, unknown>>;
  /** Options as environment variables, which override `config`. */
  env?: Readonly<Record<string, string>>;
  /** Parts to start now; default all. */
  start?: readonly Part[];
  /** A command to start a part's Node with, such as `['taskset', '-c', '0']`. */
  prefix?: Partial<Record<Part, readonly string[]>>;
  /** host:port of a policy service that runs elsewhere, for the engine. */
  policyAddress?: string;
  /** How long a part may take to become ready. */
  readyMs?: number;
}

/** The system as a user runs it: real processes on free ports of 127.0.0.1, independent of the caller's settings. */
export interface Cluster extends Addresses {
  readonly logFolder: string;
  /** The newest process of a part. Throws when it was never started. */
  part(name: Part): RunningProcess;
  /** Starts a part, again if it has ended, at the same address, and waits until it is ready. */
  start(name: Part): Promise<RunningProcess>;
  /** Resolves when the engine's stream to the policy service is up. Rejects after `readyMs`. */
  attached(): Promise<void>;
  /** Stops everything; resolves when no process is left. Logs stay only when a part did not end well. */
  close(): Promise<void>;
}

export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const [engine, gateway, grpc, metrics] = await freePorts(4);
  const logFolder = mkdtempSync(join(tmpdir(), 'crystal-kv-'));
  const configFile = join(logFolder, 'crystal-kv.yaml');
  writeFileSync(configFile, stringify(options.config ?? {}));
  const addresses: Addresses = {
    engineUrl: `http://127.0.0.1:${engine}`,
    gatewayUrl: `http://127.0.0.1:${gateway}`,
    policyAddress: options.policyAddress ?? `127.0.0.1:${grpc}`,
    policyMetricsUrl: `http://127.0.0.1:${metrics}`,
  };
  const env = {
    ...withoutSettings(process.env),
    ...options.env,
    CRYSTALKV_ENGINE_PORT: `${engine}`,
    CRYSTALKV_POLICY_ADDRESS: addresses.policyAddress,
    CRYSTALKV_POLICY_SERVICE_PORT: `${grpc}`,
    CRYSTALKV_POLICY_SERVICE_METRICS_PORT: `${metrics}`,
    CRYSTALKV_GATEWAY_PORT: `${gateway}`,
    CRYSTALKV_GATEWAY_BACKENDS: JSON.stringify([{ url: addresses.engineUrl, policyAddress: addresses.policyAddress }]),
  };
  const readyMs = options.readyMs ?? 30_000;
  const parts = PARTS.filter((name) => (options.start ?? PARTS).includes(name));
  const processes = new Map<Part, RunningProcess>();

  const launch = async (name: Part) => {
    const spec = partSpec(name, addresses, { configFile, env, logFolder, prefix: options.prefix?.[name] });
    const running = await startProcess(spec);
    processes.set(name, running);
    return running;
  };
  const ready = (running: RunningProcess) => waitUntilReady(running, readyMs);
  const attached = async () => {
    const up = () => isAttached(addresses.policyMetricsUrl);
    await until(up, 'the engine attaches to the policy service', { ms: readyMs, pollMs: 50 });
  };
  const close = async () => {
    const exits = await Promise.all([...processes.values()].reverse().map((running) => running.stop()));
    if (exits.every(({ code }) => code === 0)) rmSync(logFolder, { recursive: true, force: true });
  };

  try {
    const started = [];
    for (const name of parts) started.push(await launch(name));
    await Promise.all(started.map(ready));
    if (parts.includes('engine') && parts.includes('policy-service')) await attached();
  } catch (error) {
    await close();
    throw error;
  }
  return {
    ...addresses,
    logFolder,
    part: (name) => {
      const running = processes.get(name);
      if (running === undefined) throw new Error(`${name} was not started`);
      return running;
    },
    start: async (name) => {
      const running = await launch(name);
      await ready(running);
      return running;
    },
    attached,
    close,
  };
}

async function isAttached(policyMetricsUrl: string): Promise<boolean> {
  const samples = await readMetrics(`${policyMetricsUrl}/metrics`).catch(() => []);
  return samples.some(({ name, value }) => name === 'crystalkv_stream_up' && value === 1);
}

/** Results must not depend on what the caller's shell says. */
function withoutSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('CRYSTALKV_')));
}
