import { MOST_PEOPLE } from '../../model/english/plan.ts';
import { namesOf, wholeNumber } from '../../scripts/command-line.ts';
import { StopSignal } from '../../scripts/stop-signal.ts';
import { BACKENDS, type BackendName, CONCURRENCY, RECENT_TOKENS, SINK_TOKENS } from '../eval/backend.ts';
import { BASELINES, type Candidate, CRYSTAL, EVICTING, TOKEN_LEVEL } from '../eval/candidates.ts';
import { writeStories } from '../eval/results.ts';
import type { BenchRun } from '../program.ts';
import { startStoryBackend } from './backend.ts';
import { measureStories } from './measure.ts';
import { type StoryDetails, storyDetails } from './row.ts';
import { storyTable } from './table.ts';
import { makeStories, storySeed } from './workload.ts';

const MAX_STORIES = 100_000;
const BLOCK_LEVEL = ['window', 'random'];

/** In this order; so the first rounds of a share tell the most. */
export const STORY_CANDIDATES: readonly Candidate[] = [
  CRYSTAL,
  ...BASELINES.filter(({ key }) => BLOCK_LEVEL.includes(key)),
  ...TOKEN_LEVEL,
  EVICTING,
];

export interface StoryValues {
  backend?: string | undefined;
  people?: string | undefined;
  stories?: string | undefined;
  only?: string | undefined;
  shares?: readonly number[] | undefined;
  tuning: boolean;
}

/** Measures what is left of exact answers; writes what is done after each round, so also at Ctrl-C. */
export async function evaluateStories(values: StoryValues, { seed: given, folder, say }: BenchRun): Promise<void> {
  const backendName: BackendName = namesOf('backend', [values.backend ?? 'vllm'], BACKENDS)[0]!;
  const people = wholeNumber('people', values.people ?? '16', 4, MOST_PEOPLE);
  const count = wholeNumber('stories', values.stories ?? '200', 1, MAX_STORIES);
  const keys = STORY_CANDIDATES.map(({ key }) => key);
  const only = namesOf('only', values.only?.split(',') ?? [], keys);
  const candidates = STORY_CANDIDATES.filter(({ key }) => only.includes(key));
  const seed = storySeed(given, values.tuning);
  const stories = makeStories(seed, count, people);
  const stop = new StopSignal();
  say(`${count} stories of ${people} people, seed ${seed}; starting ${backendName}`);
  const backend = await startStoryBackend(backendName, candidates, stories);
  const setting = { backend: backendName, people, blockSize: backend.blockSize, tuning: values.tuning };
  const shares = values.shares ?? [0.25, 0.5];
  const rounds = measureStories({ backend, stories, candidates, shares, say });
  let details: StoryDetails[] = [];
  let path = '';
  try {
    for (;;) {
      const next = rounds.next();
      // Its rounds end with the backend when it is stopped.
      next.catch(() => {});
      const step = await Promise.race([next, stop.requested]);
      if (step === undefined || step.done) break;
      details = step.value.map((row) => storyDetails(row, step.value, setting));
      path = writeStories(folder, conditions(setting, seed, count), details);
    }
  } finally {
    await backend.close();
  }
  if (details.length > 0) process.stdout.write(`${storyTable(`${people} people, ${backendName}`, details)}\n`);
  say(
    stop.signal.aborted
      ? `stopped; ${path === '' ? 'nothing was done yet' : `${path} has what is done`}`
      : `wrote ${path}`,
  );
}

const conditions = (setting: { backend: BackendName; tuning: boolean }, seed: number, stories: number) => ({
  seed,
  stories,
  what: 'npm run eval -- --model english',
  seeds: setting.tuning ? 'for tuning' : 'reported',
  backend: setting.backend === 'vllm' ? 'vLLM on the CPU, float32' : 'embedded engine, weights in 8 bits',
  decoding: `greedy, lockstep, every step measured, ${CONCURRENCY} requests at a time`,
  protected: `prompt, first ${SINK_TOKENS} tokens, newest ${RECENT_TOKENS} tokens`,
  budget:
    'share of the mean thinking blocks of the same stories with a full cache; all resident blocks beyond the prompt count',
});
