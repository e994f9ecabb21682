import Table from 'cli-table3';
import { createProgress } from '../../scripts/progress.ts';
import { budgetBlocks } from '../ask.ts';
import type { BackendName } from '../eval/backend.ts';
import { BASELINES, type Candidate, CRYSTAL } from '../eval/candidates.ts';
import { countExact, generatedTokens } from '../rounds.ts';
import { type StoryRound, startStoryBackend } from './backend.ts';
import { makeStories } from './workload.ts';

export const STORIES = 4;
export const PEOPLE = 16;
export const SHARE = 0.25;
const BASELINE_KEYS = ['window', 'random'];
const CANDIDATES: readonly Candidate[] = [...BASELINES.filter(({ key }) => BASELINE_KEYS.includes(key)), CRYSTAL];

/** Stories with a full cache, then with a quarter of their thinking under each candidate. */
export async function storyDemo(backendName: BackendName, seed: number): Promise<void> {
  const stories = makeStories(seed, STORIES, PEOPLE);
  process.stdout.write(`${STORIES} stories of ${PEOPLE} people, all at once, in lockstep; starting ${backendName}\n`);
  const backend = await startStoryBackend(backendName, CANDIDATES, stories);
  const progress = createProgress('rounds', 1 + CANDIDATES.length);
  try {
    const round = async (title: string, key: string, budgetTokens?: number): Promise<[string, StoryRound]> => {
      const done = await backend.run(stories, key, budgetTokens);
      progress.done(title);
      return [title, done];
    };
    const rounds = [await round('full', 'full')];
    const full = rounds[0]![1];
    const budget = budgetBlocks(full.answers, SHARE, backend.blockSize);
    for (const { key, title } of CANDIDATES) rounds.push(await round(title, key, budget * backend.blockSize));
    progress.close();
    process.stdout.write(`\n${table(rounds, full)}\n`);
    const [first] = stories;
    process.stdout.write(`The first story: ${first!.prompt}\n  right   ${first!.answer}\n`);
    for (const [title, { answers }] of rounds) {
      process.stdout.write(`  ${title.padEnd(7)} ${answers[0]!.content.trim() || '(no answer)'}\n`);
    }
    process.stdout.write(
      `Kept by the last three: ${budget} blocks of ${backend.blockSize} thinking tokens a request.\n`,
    );
  } finally {
    progress.close();
    await backend.close();
  }
}

function table(rounds: readonly (readonly [string, StoryRound])[], full: StoryRound): string {
  const head = ['policy', 'exact answers', 'mean thinking blocks', 'peak', 'extra tokens', 'length ratio'];
  const rows = new Table({
    head,
    colAligns: head.map((_, i) => (i === 0 ? 'left' : 'right')),
    style: { head: [], border: [] },
  });
  for (const [title, { answers, memory, probeTokens }] of rounds) {
    const tokens = generatedTokens(answers);
    rows.push([
      title,
      `${countExact(answers)}/${answers.length}`,
      memory.meanOutputBlocks.toFixed(1),
      Math.max(...memory.peakOutputBlocks),
      `${((100 * probeTokens) / tokens).toFixed(0)} %`,
      (tokens / generatedTokens(full.answers)).toFixed(2),
    ]);
  }
  return rows.toString();
}
