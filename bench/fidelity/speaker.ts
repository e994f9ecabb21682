import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serviceConfig } from '../eval/backend.ts';
import type { Candidate } from '../eval/candidates.ts';
import { type ProfileMemory, watchMemory } from '../memory.ts';
import { type LockstepVllm, startLockstepVllm } from '../vllm/lockstep.ts';
import { BLOCK_SIZE, type VllmRequest, type VllmRun } from '../vllm/process.ts';
import type { Thoughts } from './figures.ts';
import type { Text } from './texts.ts';

const TELL_MS = 30_000;
/** A probe needs room too, and what follows the answer. */
const ROOM_TOKENS = 64;

/** What a profile made of all texts. */
export interface Repetition {
  /** Same order as the texts. */
  thoughts: Thoughts[];
  memory: ProfileMemory;
}

export interface Repetitions {
  /** By profile. */
  byProfile: Map<string, Repetition>;
  seconds: number;
  evictedBlocks: number;
  merges: number;
  probes: number;
}

/** A model that is made to say texts under profiles of the policy service. */
export interface Speaker {
  readonly vllmVersion: string;
  /** What it writes by itself, greedily and with a full cache, until it ends. */
  write(prompts: readonly (readonly number[])[], tokens: number): Promise<number[][]>;
  /** Takes these texts from now on, and what it thinks of them with a full cache as what all else is compared with. */
  refer(texts: readonly Text[]): Promise<Thoughts[]>;
  /**
   * The texts that were referred to, token by token as if they were being generated, under all profiles at the same time;
   * budgets are those of the texts. Throws when the run was not what it has to be.
   */
  repeat(profiles: readonly string[], budgetBlocks: readonly number[]): Promise<Repetitions>;
  close(): Promise<void>;
}

export interface SpeakerOptions {
  python: string;
  model: string;
  /** The model has an end of thinking, so it can be probed. */
  thinks: boolean;
  /** Most tokens of a text, prompt included. */
  maxTokens: number;
  /** Most texts that are said at the same time. */
  requests: number;
  say(text: string): void;
}

export async function startSpeaker(candidates: readonly Candidate[], options: SpeakerOptions): Promise<Speaker> {
  const { requests, say, thinks, maxTokens, ...engine } = options;
  const maxModelLen = maxTokens + ROOM_TOKENS;
  const blocks = Math.ceil(maxModelLen / BLOCK_SIZE) + 1;
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-fidelity-'));
  const removeFolder = () => rmSync(folder, { recursive: true, force: true });
  let lockstep: LockstepVllm;
  try {
    lockstep = await startLockstepVllm(configOf(candidates), {
      ...engine,
      maxModelLen,
      tokenizer: thinks,
      poolBlocks: requests * blocks + 1,
      core: undefined,
      forcing: true,
    });
  } catch (error) {
    removeFolder();
    throw error;
  }
  let texts: readonly Text[] = [];
  const run = (these: readonly VllmRequest[]) =>
    tellingSteps(lockstep, say, () => lockstep.vllm.run({ requests: these, ignoreEos: true, concurrency: requests }));
  const request = (text: number, profile: string, refers: boolean, budgetTokens?: number): VllmRequest => ({
    prompt: texts[text]!.prompt,
    maxTokens: texts[text]!.tokens.length,
    forced: {
      tokens: texts[text]!.tokens,
      thoughts: join(folder, `${profile}-${text}.json`),
      reference: join(folder, `${text}.f32`),
      refers,
    },
    options: {
      crystalkv_profile: profile,
      ...(budgetTokens === undefined ? {} : { crystalkv_budget_tokens: budgetTokens }),
    },
  });
  return {
    vllmVersion: lockstep.vllm.version,
    write: async (prompts, tokens) => {
      const { answers } = await lockstep.vllm.run({
        requests: prompts.map((prompt) => ({ prompt, maxTokens: tokens, options: { crystalkv_profile: 'full' } })),
        ignoreEos: false,
      });
      return answers.map((answer) => answer.tokens);
    },
    refer: async (these) => {
      texts = these;
      const { answers } = await run(texts.map((_, i) => request(i, 'full', true)));
      return thoughtsOf(answers, texts);
    },
    repeat: async (profiles, budgetBlocks) => {
      const before = await lockstep.counted();
      const watch = await watchMemory(lockstep.policyAddress, BLOCK_SIZE);
      const requested = profiles.flatMap((profile) =>
        texts.map((_, i) => request(i, profile, false, budgetBlocks[i]! * BLOCK_SIZE)),
      );
      const { answers, seconds, num_preemptions } = await run(requested);
      const { byProfile: memory } = await watch.stop();
      const after = await lockstep.counted();
      const count = (name: string) => after(name) - before(name);
      if (num_preemptions > 0) throw new Error(`${num_preemptions} preemptions: the pool is too small`);
      if (count('missed_steps') > 0) throw new Error(`${count('missed_steps')} steps went by without a plan`);
      const byProfile = new Map(
        profiles.map((profile, i) => {
          const held = memory.get(profile);
          if (held === undefined) throw new Error(`the policy service never saw the profile ${profile}`);
          const own = answers.slice(i * texts.length, (i + 1) * texts.length);
          return [profile, { thoughts: thoughtsOf(own, texts), memory: held }];
        }),
      );
      const [evictedBlocks, merges, probes] = [count('blocks_evicted'), count('merges'), count('probes')];
      return { byProfile, seconds, evictedBlocks, merges, probes };
    },
    close: async () => {
      await lockstep.close();
      removeFolder();
    },
  };
}

/** Only rules for whole blocks need the masses of blocks, so nothing is measured until one of them is about to evict. */
function configOf(candidates: readonly Candidate[]) {
  const { policy_service, profiles } = serviceConfig(candidates);
  return { policy_service: { ...policy_service, measure_every_idle: 0 }, profiles };
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

function thoughtsOf(answers: VllmRun['answers'], texts: readonly Text[]): Thoughts[] {
  return answers.map(({ tokens, kl, most_likely: mostLikely }, i) => {
    if (`${tokens}` !== `${texts[i]!.tokens}`)
      throw new Error(`text ${i}: the model did not say what it was forced to`);
    if (kl === undefined || mostLikely === undefined) throw new Error(`text ${i}: vLLM gave no divergence`);
    return { kl, mostLikely };
  });
}
