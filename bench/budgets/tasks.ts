import { judge } from '../../model/english/judge.ts';
import type { Story } from '../../model/english/story.ts';
import type { Form } from '../../model/form.ts';
import type { Program } from '../../model/program.ts';
import { OFFERED_PROGRAMS, OFFERED_STORIES } from '../../scripts/first-asked.ts';
import type { RunModelName } from '../../scripts/run-models.ts';
import type { Answer, Asked } from '../ask.ts';
import { makeStories } from '../english/workload.ts';
import { makePrograms } from '../workload.ts';

/** Questions of one length, and the budgets in tokens that are tried with them, the smallest first. */
export interface Task {
  title: string;
  /** Lines of a program, people of a story. */
  length: number;
  form?: Form;
  budgets: readonly number[];
  make(seed: number, count: number): readonly Asked[];
  isRight(answer: Answer<Asked>): boolean;
}

/** With each length and form of programs: those that are offered, and one that is too small. */
const PROGRAM_BUDGETS = [...new Set([96, ...OFFERED_PROGRAMS.map(({ budgetTokens }) => budgetTokens)])].toSorted(
  (a, b) => a - b,
);

const program = (length: number, form: Form): Task => ({
  title: `crystal-mini, ${length} lines${form === 'verbose' ? ', thinking aloud' : ''}`,
  ...{ length, form, budgets: PROGRAM_BUDGETS },
  make: (seed, count): readonly Program[] => makePrograms(seed, count, length, form),
  isRight: ({ exact }) => exact,
});

const story = (length: number, budgets: readonly number[]): Task => ({
  title: `English model, ${length} people`,
  ...{ length, budgets },
  make: (seed, count) => makeStories(seed, count, length),
  isRight: ({ program, content }) => judge(program as Story, content).exact,
});

export const TASKS: Readonly<Record<RunModelName, readonly Task[]>> = {
  'crystal-mini': [12, 24, 40].flatMap((lines) => [program(lines, 'plain'), program(lines, 'verbose')]),
  english: OFFERED_STORIES.map(({ people, budgetTokens }) => story(people, [budgetTokens])),
};
