import type { Program } from '../../model/program.ts';
import { startCluster } from '../../scripts/cluster.ts';
import { EVERY_STEP, type Round, runRound } from '../rounds.ts';
import type { Candidate } from './candidates.ts';

export const BACKENDS = ['embedded', 'vllm'] as const;
export type BackendName = (typeof BACKENDS)[number];

export const SINK_TOKENS = 4;
export const RECENT_TOKENS = 64;
export const CONCURRENCY = 16;

/** What is asked of an engine. `profile` is the key of a candidate, or `full`; no budget: the whole cache. */
export interface Task {
  programs: readonly Program[];
  profile: string;
  budgetTokens: number | undefined;
  maxTokens: number;
}

/** An engine in lockstep with a policy service that measures every step. */
export interface Backend {
  run(task: Task): Promise<Round>;
  close(): Promise<void>;
}

/** Configuration of the policy service, the same for every backend. */
export const serviceConfig = (candidates: readonly Candidate[]) => ({
  policy_service: { ...EVERY_STEP, default_profile: 'full', log_level: 'warn' },
  profiles: { full: { policy: 'full' }, ...Object.fromEntries(candidates.map(({ key, profile }) => [key, profile])) },
});

/** Configuration of the embedded engine. */
export const engineConfig = (blockSize: number, poolBlocks = 65_536 / blockSize) => ({
  block_size: blockSize,
  pool_blocks: poolBlocks,
  sink_tokens: SINK_TOKENS,
  recent_tokens: RECENT_TOKENS,
  lockstep: true,
  lockstep_timeout_ms: 10_000,
  log_level: 'warn',
});

/** The whole system with the embedded engine; its pool is ample unless `poolBlocks` says otherwise. */
export async function startEmbedded(
  candidates: readonly Candidate[],
  blockSize: number,
  poolBlocks?: number,
): Promise<Backend> {
  const engine = engineConfig(blockSize, poolBlocks);
  const cluster = await startCluster({
    config: { ...serviceConfig(candidates), engine, gateway: { log_level: 'warn' } },
  });
  return {
    run: ({ programs, profile, budgetTokens, maxTokens }) => {
      const cache = { profile, ...(budgetTokens === undefined ? {} : { budget_tokens: budgetTokens }) };
      return runRound(cluster, { programs, cache, concurrency: CONCURRENCY, maxTokens, blockSize });
    },
    close: () => cluster.close(),
  };
}
