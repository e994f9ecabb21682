import type { Program } from '../model/program.ts';
import type { Cluster } from '../scripts/cluster.ts';
import { readMetrics, total } from '../scripts/metrics/text.ts';
import { type Answer, type Asked, askAll, type CacheOption } from './ask.ts';
import { type MemoryUse, type MemoryWatch, watchMemory } from './memory.ts';

/** For the policy service, so that policies are compared by what they do with everything that can be seen. */
export const EVERY_STEP = { measure_every: 1, measure_every_idle: 1 };

/** One pass of all programs under one way to manage the cache. */
export interface Round<Task extends Asked = Program> {
  answers: Answer<Task>[];
  memory: MemoryUse;
  seconds: number;
  /** Tokens that the engine computed for answer probes. */
  probeTokens: number;
  evictedBlocks: number;
  preemptions: number;
  missedSteps: number;
}

export interface RoundOptions<Task extends Asked = Program> {
  programs: readonly Task[];
  model?: string;
  cache: CacheOption | undefined;
  concurrency: number;
  maxTokens: number;
  blockSize: number;
  onAnswer?: () => void;
  /** Instead of the policy service's word on memory. */
  memory?: () => MemoryWatch;
  /** For an engine without a gateway: what a program's request carries in `vllm_xargs`. */
  xargsOf?: (index: number) => Readonly<Record<string, string | number>>;
}

const COUNTERS = {
  probeTokens: 'crystalkv_engine_probe_tokens_total',
  evictedBlocks: 'crystalkv_engine_blocks_evicted_total',
  preemptions: 'vllm:num_preemptions_total',
  missedSteps: 'crystalkv_engine_missed_steps_total',
} as const;

/** Sends the programs through the gateway and reports what it took. */
export async function runRound<Task extends Asked>(
  cluster: Pick<Cluster, 'engineUrl' | 'gatewayUrl' | 'policyAddress'>,
  options: RoundOptions<Task>,
): Promise<Round<Task>> {
  const before = await readMetrics(`${cluster.engineUrl}/metrics`);
  const watch = options.memory?.() ?? (await watchMemory(cluster.policyAddress, options.blockSize));
  const started = performance.now();
  const answers = await askAll(cluster.gatewayUrl, options.programs, options);
  const seconds = (performance.now() - started) / 1000;
  const memory = await watch.stop();
  const after = await readMetrics(`${cluster.engineUrl}/metrics`);
  const counted = (name: string) => total(after, name) - total(before, name);
  return {
    answers,
    memory,
    seconds,
    probeTokens: counted(COUNTERS.probeTokens),
    evictedBlocks: counted(COUNTERS.evictedBlocks),
    preemptions: counted(COUNTERS.preemptions),
    missedSteps: counted(COUNTERS.missedSteps),
  };
}

export const countExact = (answers: readonly Pick<Answer, 'exact'>[]): number =>
  answers.filter((answer) => answer.exact).length;

export const generatedTokens = (answers: readonly Pick<Answer, 'generatedTokens'>[]): number =>
  answers.reduce((sum, answer) => sum + answer.generatedTokens, 0);
