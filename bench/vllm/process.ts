import { type ChildProcessByStdio, execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { z } from 'zod';
import { within } from '../../common/time.ts';
import { startChild } from '../../scripts/child.ts';
import { ROOT } from '../../scripts/processes.ts';

const STOP_MS = 30_000;
const LAST_LINES = 8;
const DRIVER = 'bench/vllm/driver.py';
const PLUGIN = {
  scheduler_cls: 'crystal_kv_vllm.scheduler.scheduler',
  worker_cls: 'crystal_kv_vllm.worker.CrystalWorker',
};

const Ready = z.object({ vllm: z.string() });
const Run = z.object({
  seconds: z.number(),
  num_preemptions: z.number(),
  /** Prompt tokens, and how many of them were found in the prefix cache. */
  prefix_cache_queries: z.number(),
  prefix_cache_hits: z.number(),
  answers: z.array(
    z.object({
      tokens: z.array(z.int()),
      first_token_seconds: z.number(),
      seconds: z.number(),
      /** Of tokens that were forced: the one that was the most likely, and the divergence from the reference, in nats. */
      most_likely: z.array(z.int()).optional(),
      kl: z.array(z.number()).optional(),
    }),
  ),
});
export type VllmRun = z.output<typeof Run>;

export interface VllmRequest {
  prompt: readonly number[];
  maxTokens: number;
  /** What the gateway would write in `vllm_xargs`. */
  options?: Readonly<Record<string, string | number>>;
  /** Default 0: greedy. */
  temperature?: number;
  seed?: number;
  /** vLLM is to be started with `forcing`. */
  forced?: Forced;
}

/** What to generate whatever the model would say, one token a step. */
export interface Forced {
  tokens: readonly number[];
  /** A file that is used meanwhile. */
  thoughts: string;
  /** File of the distributions to compare with: float32 [tokens, vocabulary]. */
  reference: string;
  /** The file is written instead of read. */
  refers: boolean;
}

export interface VllmBatch {
  requests: readonly VllmRequest[];
  /** Requests under way at the same time; default: all, and all arrive at once. */
  concurrency?: number;
  ignoreEos: boolean;
  /** The prefix cache stays as the last batch left it; default: it is emptied. */
  keepCache?: boolean;
}

/** vLLM's processes. Batches run one after the other. */
export interface Vllm {
  readonly version: string;
  /** Rejects when vLLM ends. */
  run(batch: VllmBatch): Promise<VllmRun>;
  close(): Promise<void>;
}

/** vLLM's Python; installed the first time (6 GB). */
export const vllmPython = (): string =>
  execFileSync(join(ROOT, 'scripts/vllm-env.sh'), { encoding: 'utf8' }).trim().split('\n').at(-1) ?? '';

export interface VllmOptions {
  name: string;
  python: string;
  /** Folder of the model. */
  model: string;
  /** The folder holds a tokenizer: without one the plugin knows no end of thinking, and does not probe. */
  tokenizer: boolean;
  /** With what its probes end the thinking; left out: its first end of thinking. */
  probeSuffix?: string;
  /** KV blocks of the pool. */
  poolBlocks: number;
  maxModelLen: number;
  /** Core for all of vLLM's processes; undefined: not pinned. */
  core: number | undefined;
  /** Undefined: stock vLLM, with no plugin loaded. */
  plugin: { policyAddress: string; metricsPort: number; lockstep?: boolean } | undefined;
  logFolder: string;
  /** Requests may be forced to say something. */
  forcing?: boolean;
}

export const BLOCK_SIZE = 32;
export const MAX_SEQUENCES = 64;

/** Resolves when vLLM can compute. Rejects when it ends before; its log stays in the folder. */
export async function startVllm(options: VllmOptions): Promise<Vllm> {
  const { name, plugin, model } = options;
  const logFile = join(options.logFolder, `${name}.log`);
  const log = openSync(logFile, 'a');
  const engine = {
    dtype: 'float32',
    block_size: BLOCK_SIZE,
    enforce_eager: true,
    max_model_len: options.maxModelLen,
    max_num_seqs: MAX_SEQUENCES,
    num_gpu_blocks_override: options.poolBlocks,
    seed: 0,
    skip_tokenizer_init: !options.tokenizer,
    ...(plugin === undefined ? {} : PLUGIN),
    ...(options.forcing === true ? { logits_processors: ['forced:ForcedTokens'] } : {}),
  };
  const core = options.core === undefined ? [] : [`${options.core}`];
  const stdio = ['pipe', 'pipe', log] as const;
  const command = [options.python, DRIVER, model, JSON.stringify(engine), ...core];
  const child = await startChild(command, { cwd: ROOT, env: environment(options), stdio: [...stdio] });
  closeSync(log);
  const { stdin, stdout } = child.process as ChildProcessByStdio<Writable, Readable, null>;
  const ended = child.exited.then(({ code, signal }) => {
    const lines = readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-LAST_LINES);
    throw new Error(`${name} ended (${code ?? signal}); its last lines:\n${lines.join('\n')}`);
  });
  ended.catch(() => {});
  // what is written after the end is of no use to anyone
  stdin.on('error', () => {});
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const line = await Promise.race([lines.next(), ended]);
    return line.done ? await ended : (JSON.parse(line.value) as unknown);
  };
  const close = async () => {
    stdin.end();
    await within(child.exited, STOP_MS);
    await child.stop();
  };
  const ready = await next().catch(async (error: unknown) => {
    await close();
    throw error;
  });
  return {
    version: Ready.parse(ready).vllm,
    run: async ({ requests, concurrency = requests.length, ignoreEos, keepCache = false }) => {
      const batch = {
        requests: requests.map(({ prompt, maxTokens, options: xargs = {}, temperature = 0, seed, forced }) => ({
          prompt,
          max_tokens: maxTokens,
          options: xargs,
          temperature,
          seed: seed ?? null,
          forced: forced ?? null,
        })),
        concurrency,
        ignore_eos: ignoreEos,
        keep_cache: keepCache,
      };
      stdin.write(`${JSON.stringify(batch)}\n`);
      return Run.parse(await next());
    },
    close,
  };
}

function environment({ plugin, name, core, probeSuffix }: VllmOptions): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([key]) => !key.startsWith('CRYSTALKV_') && !key.startsWith('VLLM_'));
  return {
    ...Object.fromEntries(kept),
    OMP_NUM_THREADS: '1',
    ...(core === undefined ? {} : { VLLM_CPU_OMP_THREADS_BIND: `${core}` }),
    VLLM_CPU_KVCACHE_SPACE: '1',
    VLLM_ENABLE_V1_MULTIPROCESSING: '1',
    VLLM_LOGGING_LEVEL: 'WARNING',
    VLLM_NO_USAGE_STATS: '1',
    ...(plugin === undefined
      ? { VLLM_PLUGINS: '' }
      : {
          CRYSTALKV_POLICY_ADDRESS: plugin.policyAddress,
          CRYSTALKV_METRICS_PORT: `${plugin.metricsPort}`,
          CRYSTALKV_ENGINE_ID: name,
          CRYSTALKV_STRICT: '1',
          ...(probeSuffix === undefined ? {} : { CRYSTALKV_PROBE_SUFFIX: probeSuffix }),
          ...(plugin.lockstep === true ? { CRYSTALKV_LOCKSTEP: '1', CRYSTALKV_LOCKSTEP_TIMEOUT_MS: '10000' } : {}),
        }),
  };
}
