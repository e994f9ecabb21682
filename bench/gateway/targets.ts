import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { freePorts } from '../../scripts/ports.ts';
import type { RunningProcess } from '../../scripts/processes.ts';
import { ROOT } from '../../scripts/processes.ts';
import type { Target } from './client.ts';
import { printedBy, startServer } from './server.ts';
import { MODEL } from './shapes.ts';

/** What is measured: the upstream itself, ours, and the peers. */
export const TARGETS = ['direct', 'gateway', 'nginx', 'vllm-router', 'portkey', 'litellm'] as const;
export type TargetName = (typeof TARGETS)[number];

/** A server that takes the load, and the process whose use of the machine is counted. */
export interface RunningTarget extends Target, Pick<RunningProcess, 'pid' | 'stop'> {
  name: TargetName;
}

export interface Place {
  upstreamUrl: string;
  /** Configuration and logs go there. */
  folder: string;
  /** The nice value of what is started. */
  priority: number;
  signal: AbortSignal;
}

const PEERS = join(ROOT, 'bench/gateway/peers.sh');

/** Load generator and upstream on the first core, what is measured on the last; undefined: not pinned. */
export const CORES = pinnable() ? { load: 0, target: availableParallelism() - 1 } : undefined;

export const pinned = (core: number | undefined): string[] => (core === undefined ? [] : ['taskset', '-c', `${core}`]);

export async function startUpstream(folder: string, priority: number, signal: AbortSignal) {
  const [port = 0] = await freePorts(1);
  const url = `http://127.0.0.1:${port}`;
  const script = join(ROOT, 'bench/gateway/upstream.ts');
  const command = [...pinned(CORES?.load), process.execPath, script, `${port}`];
  const server = await startServer({ name: 'upstream', command, folder, readyUrl: url, priority }, signal);
  return { ...server, url };
}

/** Installs what is missing and starts it. Rejects with the reason when that does not work here. */
export async function startTarget(name: Exclude<TargetName, 'direct'>, place: Place): Promise<RunningTarget> {
  const [port = 0, second = 0] = await freePorts(2);
  const url = `http://127.0.0.1:${port}`;
  const { command, env = {}, headers = {}, ready } = await STARTERS[name]({ ...place, port, second });
  const spec = { name, env, folder: place.folder, readyUrl: url + ready, priority: place.priority };
  const server = await startServer({ ...spec, command: [...pinned(CORES?.target), ...command] }, place.signal);
  return { ...server, name, url, headers };
}

interface Start {
  command: string[];
  env?: Record<string, string>;
  headers?: Record<string, string>;
  /** The path that answers 200 once it is up. */
  ready: string;
}

type Starter = (place: Place & { port: number; second: number }) => Promise<Start>;

const peer = (name: string, signal: AbortSignal) => printedBy([PEERS, name], signal);

/** Each as its documentation says for one process, without what the others do not do either. */
const STARTERS: Record<Exclude<TargetName, 'direct'>, Starter> = {
  gateway: async ({ upstreamUrl, folder, port, signal }) => {
    const keys = { store: 'file', file: join(folder, 'keys.json') };
    const section = { gateway: { port, keys, backends: [{ url: upstreamUrl }] } };
    const config = write(folder, 'crystal-kv.yaml', stringify(section));
    const create = [process.execPath, join(ROOT, 'scripts/keys.ts'), 'create', 'bench', '--config', config];
    const [secret = ''] = (await printedBy(create, signal)).split('\n');
    return {
      command: [process.execPath, join(ROOT, 'gateway/main.ts'), '--config', config],
      env: { NODE_ENV: 'production' },
      headers: { authorization: `Bearer ${secret}` },
      ready: '/ready',
    };
  },

  nginx: async ({ upstreamUrl, folder, port, signal }) => {
    const program = await peer('nginx', signal);
    const config = write(
      folder,
      'nginx.conf',
      `worker_processes 1;
daemon off;
pid ${folder}/nginx.pid;
error_log ${folder}/nginx-error.log;
events { worker_connections 4096; }
http {
  access_log ${folder}/nginx-access.log;
  client_body_temp_path ${folder}/nginx-body;
  proxy_temp_path ${folder}/nginx-proxy;
  fastcgi_temp_path ${folder}/nginx-fastcgi;
  uwsgi_temp_path ${folder}/nginx-uwsgi;
  scgi_temp_path ${folder}/nginx-scgi;
  keepalive_requests 1000000;
  upstream backend { server ${new URL(upstreamUrl).host}; keepalive 512; keepalive_requests 1000000; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }
  }
}
`,
    );
    return { command: [program, '-p', folder, '-c', config], ready: '/v1/models' };
  },

  'vllm-router': async ({ upstreamUrl, port, second, signal }) => ({
    command: [
      await peer('vllm-router', signal),
      ...['--worker-urls', upstreamUrl, '--host', '127.0.0.1', '--port', `${port}`],
      ...['--policy', 'round_robin', '--prometheus-host', '127.0.0.1', '--prometheus-port', `${second}`],
    ],
    ready: '/health',
  }),

  portkey: async ({ upstreamUrl, port, signal }) => ({
    command: [process.execPath, await peer('portkey', signal), `--port=${port}`, '--headless'],
    env: { NODE_ENV: 'production' },
    headers: {
      'x-portkey-provider': 'openai',
      'x-portkey-custom-host': `${upstreamUrl}/v1`,
      authorization: 'Bearer none',
    },
    ready: '/',
  }),

  litellm: async ({ upstreamUrl, folder, port, signal }) => {
    const key = 'sk-bench';
    const model = { model: `openai/${MODEL}`, api_base: `${upstreamUrl}/v1`, api_key: 'none' };
    const config = write(
      folder,
      'litellm.yaml',
      stringify({
        model_list: [{ model_name: MODEL, litellm_params: model }],
        general_settings: { master_key: key },
        litellm_settings: { telemetry: false },
      }),
    );
    return {
      command: [
        await peer('litellm', signal),
        ...['--config', config, '--host', '127.0.0.1', '--port', `${port}`, '--num_workers', '1'],
      ],
      env: { LITELLM_MODE: 'PRODUCTION', LITELLM_LOG: 'ERROR', LITELLM_LOCAL_MODEL_COST_MAP: 'True' },
      headers: { authorization: `Bearer ${key}` },
      ready: '/health/liveliness',
    };
  },
};

function write(folder: string, name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function pinnable(): boolean {
  if (availableParallelism() < 2) return false;
  try {
    execFileSync('taskset', ['-c', `${availableParallelism() - 1}`, 'true'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
