import { loadTokenizer } from '../../engine/http/tokenizer.ts';
import { serviceConfig } from '../eval/backend.ts';
import type { Candidate } from '../eval/candidates.ts';
import { type ProfileMemory, watchMemory } from '../memory.ts';
import { type LockstepVllm, startLockstepVllm } from '../vllm/lockstep.ts';
import { BLOCK_SIZE, type VllmRequest, type VllmRun } from '../vllm/process.ts';
import type { Spoken } from './figures.ts';

const TELL_MS = 30_000;

/** Token ids of prompts, through the model's chat template. */
export function encodePrompts(model: string, prompts: readonly string[]): number[][] {
  const tokenizer = loadTokenizer(model);
  return prompts.map((content) => tokenizer.encodeChat([{ role: 'user', content }], { add_generation_prompt: true }));
}

export interface Sequence {
  prompt: readonly number[];
  tokens: readonly number[];
  spoken: Spoken;
}

/** What a profile made of all sequences. */
export interface Repetition {
  /** Same order as the sequences. */
  spoken: Spoken[];
  memory: ProfileMemory;
}

export interface Repetitions {
  /** By profile. */
  byProfile: Map<string, Repetition>;
  seconds: number;
  evictedBlocks: number;
  merges: number;
}

/** A model that says things, and says them again under a profile of the policy service. */
export interface Speaker {
  readonly vllmVersion: string;
  /** Sampled at temperature 1 with a full cache; sequence i has the seed `seed + i`. */
  write(prompts: readonly (readonly number[])[], tokens: number, seed: number): Promise<Sequence[]>;
  /**
   * Token by token, as if they were being generated, under all profiles at the same time. Throws when the run was not what
   * it has to be.
   */
  repeat(sequences: readonly Sequence[], profiles: readonly string[], budgetTokens: number): Promise<Repetitions>;
  close(): Promise<void>;
}

export async function startSpeaker(
  candidates: readonly Candidate[],
  options: { python: string; model: string; maxModelLen: number; requests: number; say(text: string): void },
): Promise<Speaker> {
  const { requests: most, say, ...engine } = options;
  const blocks = Math.ceil(options.maxModelLen / BLOCK_SIZE) + 1;
  const lockstep = await startLockstepVllm(serviceConfig(candidates), {
    ...engine,
    tokenizer: false,
    poolBlocks: most * blocks + 1,
    core: undefined,
    forcing: true,
  });
  const run = (requests: readonly VllmRequest[]) =>
    tellingSteps(lockstep, say, () => lockstep.vllm.run({ requests, ignoreEos: true, logprobs: true }));
  return {
    vllmVersion: lockstep.vllm.version,
    write: async (prompts, tokens, seed) => {
      const requests = prompts.map((prompt, i) => ({
        prompt,
        maxTokens: tokens,
        temperature: 1,
        seed: seed + i,
        options: { crystalkv_profile: 'full' },
      }));
      const { answers } = await run(requests);
      return answers.map((answer, i) => ({ prompt: prompts[i]!, tokens: answer.tokens, spoken: spokenOf(answer) }));
    },
    repeat: (sequences, profiles, budgetTokens) => repeat(lockstep, run, sequences, profiles, budgetTokens),
    close: () => lockstep.close(),
  };
}

/** Each request generates a token a step. */
async function tellingSteps<Result>(
  { counted }: LockstepVllm,
  say: (text: string) => void,
  work: () => Promise<Result>,
): Promise<Result> {
  const steps = async () => (await counted())('steps');
  const before = await steps();
  const timer = setInterval(async () => {
    const now = await steps().catch(() => undefined);
    if (now !== undefined) say(`  ${now - before} steps`);
  }, TELL_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

async function repeat(
  { counted, policyAddress }: LockstepVllm,
  run: (requests: readonly VllmRequest[]) => Promise<VllmRun>,
  sequences: readonly Sequence[],
  profiles: readonly string[],
  budgetTokens: number,
): Promise<Repetitions> {
  const before = await counted();
  const watch = await watchMemory(policyAddress, BLOCK_SIZE);
  const { answers, seconds, num_preemptions } = await run(
    profiles.flatMap((profile) =>
      sequences.map(({ prompt, tokens }) => ({
        prompt,
        maxTokens: tokens.length,
        forced: tokens,
        options: { crystalkv_profile: profile, crystalkv_budget_tokens: budgetTokens },
      })),
    ),
  );
  const { byProfile: memory } = await watch.stop();
  const after = await counted();
  const count = (name: string) => after(name) - before(name);
  const strayed = answers.findIndex(({ tokens }, i) => `${tokens}` !== `${sequences[i % sequences.length]!.tokens}`);
  if (strayed >= 0) throw new Error(`request ${strayed} did not say what it was forced to`);
  if (num_preemptions > 0) throw new Error(`${num_preemptions} preemptions: the pool is too small`);
  if (count('missed_steps') > 0) throw new Error(`${count('missed_steps')} steps went by without a plan`);
  return {
    byProfile: new Map(
      profiles.map((profile, i) => {
        const own = answers.slice(i * sequences.length, (i + 1) * sequences.length);
        const held = memory.get(profile);
        if (held === undefined) throw new Error(`the policy service never saw the profile ${profile}`);
        return [profile, { spoken: own.map(spokenOf), memory: held }];
      }),
    ),
    seconds,
    evictedBlocks: count('blocks_evicted'),
    merges: count('merges'),
  };
}

function spokenOf({ logprobs, most_likely: mostLikely }: VllmRun['answers'][number]): Spoken {
  if (logprobs === undefined || mostLikely === undefined) throw new Error('vLLM gave no log-probabilities');
  return { logprobs, mostLikely };
}
