import { englishFolder } from '../../model/english/folder.ts';
import { judge } from '../../model/english/judge.ts';
import { STOP_THINKING, type Story } from '../../model/english/story.ts';
import { startCluster } from '../../scripts/cluster.ts';
import type { Answer } from '../ask.ts';
import { type BackendName, CONCURRENCY, engineConfig, serviceConfig } from '../eval/backend.ts';
import type { Candidate } from '../eval/candidates.ts';
import { profileOptions, runLockstep } from '../eval/vllm-backend.ts';
import { type Round, runRound } from '../rounds.ts';
import { startLockstepVllm } from '../vllm/lockstep.ts';
import { BLOCK_SIZE as VLLM_BLOCK_SIZE, vllmPython } from '../vllm/process.ts';
import { type StoryTokens, storyTokens } from './workload.ts';

/** Reading the weights takes seconds, on a busy machine many. */
export const READY_MS = 180_000;

export type StoryAnswer = Answer<Story>;
export type StoryRound = Round<Story>;

/** An engine with the English model, in lockstep with a policy service that measures every step. */
export interface StoryBackend {
  readonly blockSize: number;
  /** `profile`: the key of a candidate, or `full`; no budget: the whole cache. */
  run(stories: readonly Story[], profile: string, budgetTokens: number | undefined): Promise<StoryRound>;
  close(): Promise<void>;
}

/** For these stories; answers of longer ones would be cut. The model is made when it is not there. */
export async function startStoryBackend(
  name: BackendName,
  candidates: readonly Candidate[],
  stories: readonly Story[],
): Promise<StoryBackend> {
  const folder = englishFolder();
  const tokens = storyTokens(folder);
  const maxTokens = tokens.limit(stories);
  const longest = Math.max(...stories.map((story) => tokens.prompt(story).length)) + maxTokens;
  const started = { folder, tokens, maxTokens, longest, candidates };
  return name === 'vllm' ? await startVllm(started) : await startEmbedded(started);
}

interface Started {
  folder: string;
  tokens: StoryTokens;
  maxTokens: number;
  /** Tokens of the longest sequence. */
  longest: number;
  candidates: readonly Candidate[];
}

async function startVllm({ folder, tokens, maxTokens, longest, candidates }: Started): Promise<StoryBackend> {
  const blockSize = VLLM_BLOCK_SIZE;
  const lockstep = await startLockstepVllm(serviceConfig(candidates), {
    python: vllmPython(),
    model: folder,
    tokenizer: true,
    probeSuffix: STOP_THINKING,
    poolBlocks: poolBlocks(longest, blockSize),
    maxModelLen: longest,
    core: undefined,
  });
  return {
    blockSize,
    async run(stories, profile, budgetTokens) {
      const options = profileOptions(profile, budgetTokens);
      const requests = stories.map((story) => ({ prompt: tokens.prompt(story), maxTokens, options }));
      const batch = { requests, concurrency: CONCURRENCY, ignoreEos: false };
      const { tokens: written, ...round } = await runLockstep(lockstep, batch, blockSize);
      const answers = written.map((ids, i) => {
        const content = tokens.content(ids);
        const answer = { program: stories[i]!, content: content ?? '', thinkingEnded: content !== undefined };
        return judged({ ...answer, promptTokens: requests[i]!.prompt.length, generatedTokens: ids.length });
      });
      return { ...round, answers };
    },
    close: () => lockstep.close(),
  };
}

async function startEmbedded({ folder, maxTokens, longest, candidates }: Started): Promise<StoryBackend> {
  const blockSize = 16;
  const engine = {
    ...engineConfig(blockSize, poolBlocks(longest, blockSize)),
    ...{
      model: folder,
      served_model_name: 'english',
      weights: 'int8',
      segment_markers: ['\n'],
      probe_suffix: STOP_THINKING,
    },
  };
  const cluster = await startCluster({
    config: { ...serviceConfig(candidates), engine, gateway: { log_level: 'warn' } },
    readyMs: READY_MS,
  });
  return {
    blockSize,
    async run(stories, profile, budgetTokens) {
      const cache = { profile, ...(budgetTokens === undefined ? {} : { budget_tokens: budgetTokens }) };
      const options = { programs: stories, cache, concurrency: CONCURRENCY, maxTokens, blockSize, model: 'english' };
      const round = await runRound(cluster, options);
      return { ...round, answers: round.answers.map(judged) };
    },
    close: () => cluster.close(),
  };
}

/** For whole caches and their probes. */
const poolBlocks = (longest: number, blockSize: number): number =>
  Math.ceil(1.25 * CONCURRENCY * Math.ceil(longest / blockSize));

const judged = (answer: Omit<StoryAnswer, 'exact'>): StoryAnswer => ({
  ...answer,
  exact: judge(answer.program, answer.content).exact,
});
