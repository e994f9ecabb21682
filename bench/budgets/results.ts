import type { RunModelName } from '../../scripts/run-models.ts';
import { markdownTable } from '../markdown-table.ts';
import { readReport } from '../report.ts';

/** How many of `count` questions were answered right: the first ones that the seed gives. */
export interface BudgetRow {
  title: string;
  length: number;
  form: string;
  /** Tokens of output; null: the full cache. */
  budget: number | null;
  count: number;
  right: number;
  /** Mean tokens of output. */
  tokens: number;
}

/** The report of a model's budgets. */
export const reportOf = (model: RunModelName): string => `budgets-${model}`;

/** The rows of the last run, if it had the same seed: so a run can be continued. */
export function earlierRows(folder: string, model: RunModelName, seed: number): readonly BudgetRow[] {
  const report = readReport<BudgetRow>(reportOf(model), folder);
  return report?.conditions['seed'] === seed ? report.rows : [];
}

/** A line for each length, a column for each budget. */
export function budgetTable(rows: readonly BudgetRow[]): string {
  const budgets = [...new Set(rows.flatMap(({ budget }) => budget ?? []))].toSorted((a, b) => a - b);
  const titles = [...new Set(rows.toSorted((a, b) => a.length - b.length).map(({ title }) => title))];
  const cell = (row: BudgetRow | undefined) => (row === undefined ? '' : `${row.right} of ${row.count}`);
  return markdownTable(
    ['right answers', 'mean tokens of output', 'full cache', ...budgets.map((budget) => `${budget}`)],
    titles.map((title) => {
      const own = rows.filter((row) => row.title === title);
      const full = own.find(({ budget }) => budget === null);
      const kept = budgets.map((budget) => cell(own.find((row) => row.budget === budget)));
      return [title, full?.tokens.toFixed(0) ?? '', cell(full), ...kept];
    }),
  );
}
