import type { Story } from '../../model/english/story.ts';
import { budgetBlocks } from '../ask.ts';
import { CONCURRENCY } from '../eval/backend.ts';
import type { Candidate } from '../eval/candidates.ts';
import { countExact } from '../rounds.ts';
import type { StoryBackend, StoryRound } from './backend.ts';
import { answersOf, type StoryRow } from './row.ts';

export interface StoryTask {
  backend: StoryBackend;
  stories: readonly Story[];
  candidates: readonly Candidate[];
  shares: readonly number[];
  /** For people: one line for each round. */
  say(text: string): void;
}

/**
 * Sends all stories with a full cache, and then, for each share, some stories at a time under every candidate. So what is
 * there at any time can be compared in pairs. Yields all rows after each round, the full cache's first.
 */
export async function* measureStories({
  backend,
  stories,
  candidates,
  shares,
  say,
}: StoryTask): AsyncGenerator<StoryRow[]> {
  const groups: (readonly Story[])[] = [];
  for (let i = 0; i < stories.length; i += CONCURRENCY) groups.push(stories.slice(i, i + CONCURRENCY));
  const full: Growing = { key: 'full', title: 'full cache', share: undefined, budgetBlocks: undefined, rounds: [] };
  const rows: Growing[] = [full];
  const extend = async (row: Growing, group: readonly Story[]) => {
    const budget = row.budgetBlocks === undefined ? undefined : row.budgetBlocks * backend.blockSize;
    const round = await backend.run(group, row.key, budget);
    row.rounds.push(round);
    const answers = answersOf(row);
    const where = row.share === undefined ? '' : ` at ${Math.round(100 * row.share)} %`;
    say(`${row.title}${where}: ${countExact(answers)} of ${answers.length} exact (${stories.length} stories)`);
  };
  for (const group of groups) {
    await extend(full, group);
    yield rows;
  }
  for (const share of shares) {
    const budget = budgetBlocks(answersOf(full), share, backend.blockSize);
    const own = candidates.map(({ key, title }): Growing => ({ key, title, share, budgetBlocks: budget, rounds: [] }));
    for (const group of groups) {
      for (const row of own) {
        await extend(row, group);
        if (!rows.includes(row)) rows.push(row);
        yield rows;
      }
    }
  }
}

interface Growing extends StoryRow {
  rounds: StoryRound[];
}
