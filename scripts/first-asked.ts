import type { Form } from '../model/form.ts';

/** A task that the live page offers, with a budget in tokens that keeps its answer: `npm run bench:budgets` measures it. */
interface Offered {
  seed: number;
  budgetTokens: number;
}

interface OfferedProgram extends Offered {
  lines: number;
  form: Form;
}

interface OfferedStory extends Offered {
  people: number;
}

/** Of crystal-mini. `make run` prints the first one. */
export const OFFERED_PROGRAMS: readonly [OfferedProgram, ...OfferedProgram[]] = [
  { lines: 24, form: 'plain', seed: 1, budgetTokens: 160 },
  { lines: 24, form: 'verbose', seed: 5, budgetTokens: 320 },
  { lines: 40, form: 'plain', seed: 3, budgetTokens: 320 },
  { lines: 40, form: 'verbose', seed: 7, budgetTokens: 320 },
];

/** Of the English model. `make run MODEL=english` prints the first one. */
export const OFFERED_STORIES: readonly [OfferedStory, ...OfferedStory[]] = [
  { people: 8, seed: 1, budgetTokens: 224 },
  { people: 16, seed: 2, budgetTokens: 448 },
  { people: 24, seed: 3, budgetTokens: 704 },
];
