import { join } from 'node:path';
import { ROOT } from '../../scripts/processes.ts';
import { watchMemory } from '../memory.ts';
import type { Round } from '../rounds.ts';
import { type LockstepVllm, startLockstepVllm } from '../vllm/lockstep.ts';
import { askFor, contentOf, withOptions } from '../vllm/pair.ts';
import { BLOCK_SIZE, type VllmBatch, vllmPython } from '../vllm/process.ts';
import { type Backend, CONCURRENCY, serviceConfig } from './backend.ts';
import type { Candidate } from './candidates.ts';

const POOL_BLOCKS = 2048;
/** The model's longest sequence. */
const POSITIONS = 2048;

/** vLLM on the CPU with the plugin; installed the first time (6 GB). Its kernels take blocks of 32 tokens. */
export async function startVllmBackend(candidates: readonly Candidate[], blockSize: number): Promise<Backend> {
  if (blockSize !== BLOCK_SIZE) throw new RangeError(`vLLM on a CPU takes blocks of ${BLOCK_SIZE}, got ${blockSize}`);
  const lockstep = await startLockstepVllm(serviceConfig(candidates), {
    python: vllmPython(),
    model: join(ROOT, 'model/crystal-mini'),
    tokenizer: true,
    poolBlocks: POOL_BLOCKS,
    maxModelLen: POSITIONS,
    core: undefined,
  });
  return {
    async run({ programs, profile, budgetTokens, maxTokens }) {
      const work = withOptions(askFor(programs, maxTokens, false), profileOptions(profile, budgetTokens));
      const { tokens, ...round } = await runLockstep(lockstep, { ...work, concurrency: CONCURRENCY }, blockSize);
      return {
        ...round,
        answers: tokens.map((written, i) => {
          const program = programs[i]!;
          const content = contentOf(written);
          return {
            program,
            content: content ?? '',
            exact: content?.includes(program.answer) ?? false,
            thinkingEnded: content !== undefined,
            promptTokens: program.promptLength,
            generatedTokens: written.length,
          };
        }),
      };
    },
    close: () => lockstep.close(),
  };
}

/** What the gateway would write in a request for a profile and a budget. */
export const profileOptions = (profile: string, budgetTokens: number | undefined) => ({
  crystalkv_profile: profile,
  ...(budgetTokens === undefined ? {} : { crystalkv_budget_tokens: budgetTokens }),
});

/** A round of requests, as the tokens that were written. */
export async function runLockstep(
  { vllm, policyAddress, counted }: LockstepVllm,
  batch: VllmBatch,
  blockSize: number,
): Promise<Omit<Round, 'answers'> & { tokens: (readonly number[])[] }> {
  const before = await counted();
  const watch = await watchMemory(policyAddress, blockSize);
  const result = await vllm.run(batch);
  const memory = await watch.stop();
  const after = await counted();
  const difference = (name: string) => after(name) - before(name);
  return {
    tokens: result.answers.map(({ tokens }) => tokens),
    memory,
    seconds: result.seconds,
    probeTokens: difference('probe_tokens'),
    evictedBlocks: difference('blocks_evicted'),
    preemptions: result.num_preemptions,
    missedSteps: difference('missed_steps'),
  };
}
