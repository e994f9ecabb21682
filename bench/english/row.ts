import { judge } from '../../model/english/judge.ts';
import type { Question } from '../../model/english/story.ts';
import type { BackendName } from '../eval/backend.ts';
import { CRYSTAL } from '../eval/candidates.ts';
import { countExact, generatedTokens } from '../rounds.ts';
import { add, mean, pairedLow, round, wilson } from '../statistics.ts';
import type { StoryAnswer, StoryRound } from './backend.ts';

export const STORY_CLASSES = ['cold', 'hub', 'last', 'other'] as const satisfies readonly Question['class'][];

/** What is measured, the same for all rows of a run. */
export interface StorySetting {
  backend: BackendName;
  people: number;
  blockSize: number;
  /** The stories' seed is one for choosing, not for reporting. */
  tuning: boolean;
}

/** A candidate at a share of the thinking, in rounds over the stories as far as they are done. */
export interface StoryRow {
  key: string;
  title: string;
  /** undefined: the full cache. */
  share: number | undefined;
  budgetBlocks: number | undefined;
  rounds: readonly StoryRound[];
}

export type StoryDetails = ReturnType<typeof storyDetails>;

/** Everything that is said of a row; `rows` are those of its run, with the full cache's first. */
export function storyDetails(row: StoryRow, rows: readonly StoryRow[], setting: StorySetting) {
  const { key, title, share, budgetBlocks, rounds } = row;
  const answers = answersOf(row);
  const exact = countExact(answers);
  const interval = wilson(exact, answers.length);
  const full = answersOf(rows[0]!).slice(0, answers.length);
  const peaks = rounds.flatMap(({ memory }) => memory.peakOutputBlocks);
  const total = (value: (round: StoryRound) => number) => add(rounds.map(value));
  const crystal = rows.find((other) => other.key === CRYSTAL.key && other.share === share);
  return {
    part: 'english' as const,
    backend: setting.backend,
    people: setting.people,
    block_size: setting.blockSize,
    tuning: setting.tuning,
    stories: answers.length,
    key,
    title,
    share: share ?? 1,
    budget_blocks: budgetBlocks ?? null,
    exact: round(exact / answers.length),
    exact_low: round(interval.low),
    exact_high: round(interval.high),
    ...paired('full', answers, full),
    ...(crystal === undefined || crystal === row ? {} : paired('crystal', answers, answersOf(crystal))),
    ...(Object.fromEntries(STORY_CLASSES.map((of) => [`right_${of}`, rightShare(answers, of)])) as Record<
      `right_${(typeof STORY_CLASSES)[number]}`,
      number | null
    >),
    length_ratio: round(generatedTokens(answers) / generatedTokens(full)),
    unended_share: round(answers.filter(({ thinkingEnded }) => !thinkingEnded).length / answers.length),
    extra_tokens_share: round(total(({ probeTokens }) => probeTokens) / generatedTokens(answers)),
    mean_blocks: round(mean(rounds.map(({ memory }) => memory.meanOutputBlocks)), 2),
    peak_blocks: Math.max(...peaks),
    evicted_blocks: total(({ evictedBlocks }) => evictedBlocks),
    preemptions: total(({ preemptions }) => preemptions),
    missed_steps: total(({ missedSteps }) => missedSteps),
  };
}

export const answersOf = ({ rounds }: StoryRow): StoryAnswer[] => rounds.flatMap(({ answers }) => answers);

/** The difference to others on the stories that both have, and the lower end of its 95 % interval. */
function paired<Name extends string>(name: Name, own: readonly StoryAnswer[], others: readonly StoryAnswer[]) {
  const count = Math.min(own.length, others.length);
  const [a, b] = [own, others].map((answers) => answers.slice(0, count).map(({ exact }) => exact)) as [
    boolean[],
    boolean[],
  ];
  const difference = (a.filter(Boolean).length - b.filter(Boolean).length) / count;
  return { [`to_${name}`]: round(difference), [`to_${name}_low`]: round(pairedLow(a, b)) } as Record<
    `to_${Name}` | `to_${Name}_low`,
    number
  >;
}

/** Of the questions of a class, the share whose count the answers give; null when none was asked. */
function rightShare(answers: readonly StoryAnswer[], wanted: Question['class']): number | null {
  const right = answers.flatMap(({ program, content }) => {
    const judgement = judge(program, content);
    return program.questions.flatMap((question, i) => (question.class === wanted ? [judgement.right[i]!] : []));
  });
  return right.length === 0 ? null : round(right.filter(Boolean).length / right.length);
}
