import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { StoryRound } from '../../bench/english/backend.ts';
import { measureStories } from '../../bench/english/measure.ts';
import { STORY_CLASSES, type StoryRow, storyDetails } from '../../bench/english/row.ts';
import { storyTable } from '../../bench/english/table.ts';
import { makeStories, storySeed } from '../../bench/english/workload.ts';
import { CONCURRENCY } from '../../bench/eval/backend.ts';
import { readResults, writeStories } from '../../bench/eval/results.ts';
import type { Story } from '../../model/english/story.ts';

const SETTING = { backend: 'vllm', people: 16, blockSize: 32, tuning: false } as const;
const STORIES = makeStories(5, CONCURRENCY + 4, 8);
const CANDIDATES = ['crystal', 'h2o_tokens'].map((key) => ({ key, title: key, profile: {} }));

/** Answers as an engine would give them; those that `isRight` says are right. */
const roundOf = (stories: readonly Story[], isRight: (story: Story) => boolean): StoryRound => ({
  answers: stories.map((program) => {
    const right = isRight(program);
    const content = right ? `\n\n${program.answer}` : program.answer.replace(/\d+$/, '99');
    return { program, content, exact: right, thinkingEnded: true, promptTokens: 100, generatedTokens: 320 };
  }),
  memory: { meanPoolBlocks: 9, peakPoolBlocks: 12, meanOutputBlocks: 4, peakOutputBlocks: stories.map(() => 5) },
  ...{ seconds: 1, probeTokens: 32, evictedBlocks: 3, preemptions: 0, missedSteps: 0 },
});

test('seeds for tuning, for reports and for training never meet', () => {
  for (const seed of [0, 1, 999_999, 2 ** 30 - 1, 2 ** 30, 2 ** 31 - 1]) {
    const [tuning, reported] = [storySeed(seed, true), storySeed(seed, false)];
    assert.ok(tuning >= 1_000_000 && tuning < 2 ** 30 && reported >= 2 ** 30 && reported < 2 ** 31);
    assert.equal(storySeed(reported, false), reported);
  }
});

describe('an evaluation with stories', () => {
  async function measured(): Promise<{ all: StoryRow[][]; budgets: (number | undefined)[] }> {
    const budgets: (number | undefined)[] = [];
    const backend = {
      blockSize: 32,
      run: async (stories: readonly Story[], profile: string, budget: number | undefined) => {
        budgets.push(budget);
        return roundOf(stories, (story) => profile === 'full' || (profile === 'crystal' && story !== STORIES[0]));
      },
      close: async () => {},
    };
    const all: StoryRow[][] = [];
    const task = { backend, stories: STORIES, candidates: CANDIDATES, shares: [0.25], say: () => {} };
    for await (const rows of measureStories(task)) all.push(rows.map((row) => ({ ...row, rounds: [...row.rounds] })));
    return { all, budgets };
  }

  test('has rows after each round, whose stories pair with those of the full cache', async () => {
    const { all, budgets } = await measured();
    const stories = all.map((rows) => rows.map((row) => storyDetails(row, rows, SETTING).stories));
    const [some, every] = [CONCURRENCY, STORIES.length];
    assert.deepEqual(stories, [
      [some],
      [every],
      [every, some],
      [every, some, some],
      [every, every, some],
      [every, every, every],
    ]);
    // of ceil(419 / 32) - ceil(100 / 32) blocks
    assert.deepEqual(budgets, [undefined, undefined, 96, 96, 96, 96]);
  });

  test('counts exact answers, classes of questions and extra tokens, and compares in pairs', async () => {
    const rows = (await measured()).all.at(-1)!;
    const [full, crystal, h2o] = rows.map((row) => storyDetails(row, rows, SETTING));
    const n = STORIES.length;
    assert.deepEqual([full!.exact, crystal!.exact, h2o!.exact], [1, Number(((n - 1) / n).toFixed(3)), 0]);
    assert.ok(crystal!.to_full < 0 && crystal!.to_full_low < crystal!.to_full);
    assert.equal((h2o as { to_crystal?: number }).to_crystal, Number(((1 - n) / n).toFixed(3)));
    assert.equal(h2o!.extra_tokens_share, Number(((2 * 32) / (n * 320)).toFixed(3)));
    // the last question alone is answered wrong
    const classes = [h2o!.right_cold, h2o!.right_hub, h2o!.right_last, h2o!.right_other].filter(
      (share) => share !== null,
    );
    assert.ok(classes.some((share) => share > 0) && classes.some((share) => share < 1));
    const asked = new Set(STORIES.flatMap(({ questions }) => questions.map((question) => question.class)));
    for (const of of STORY_CLASSES) assert.equal(full![`right_${of}`], asked.has(of) ? 1 : null);
    assert.match(storyTable('stories', [full!, crystal!]), /\| crystal, 25 % \| 3 \| 20 \| 95 % /);
  });

  test('leaves figures beside those of programs, and goes on where the same run ended', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-'));
    try {
      const rows = (await measured()).all.at(-1)!;
      const details = rows.map((row) => storyDetails(row, rows, SETTING));
      const conditions = { seed: 2 ** 30, stories: STORIES.length };
      writeStories(folder, conditions, details.slice(0, 2));
      const path = writeStories(folder, conditions, details.slice(2));
      assert.deepEqual(
        readResults(folder).stories.map(({ key }) => key),
        ['full', 'crystal', 'h2o_tokens'],
      );
      const { figures } = JSON.parse(readFileSync(path, 'utf8')) as { figures: Record<string, number> };
      assert.equal(figures['english_full'], 1);
      assert.equal(figures['english_crystal_25'], details[1]!.exact);
      assert.equal(figures['english_best_baseline_25'], 0);
      writeStories(folder, { ...conditions, seed: 2 ** 30 + 1 }, details.slice(0, 1));
      assert.equal(readResults(folder).stories.length, 1);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
