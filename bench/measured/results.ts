import { RUN_MODEL_NAMES } from '../../scripts/run-models.ts';
import { type BudgetRow, budgetTable, reportOf } from '../budgets/results.ts';
import { storyTable } from '../english/table.ts';
import { gridTable } from '../eval/grid-table.ts';
import { readResults } from '../eval/results.ts';
import { markdown } from '../eval/table.ts';
import type { Row } from '../fidelity/measure.ts';
import { markdown as fidelityTable } from '../fidelity/results.ts';
import { RESULTS, type Report, readReport } from '../report.ts';
import type { FiguresOf } from './render.ts';

const BUDGETS = RUN_MODEL_NAMES.map(reportOf);
const reports = new Map<string, Report | undefined>();

/** Each file is read once: a template asks for dozens of figures. */
function readOnce(name: string): Report | undefined {
  if (!reports.has(name)) reports.set(name, readReport(name, RESULTS));
  return reports.get(name);
}

function needed(name: string): Report {
  const report = readOnce(name);
  if (report === undefined) throw new Error(`bench/results has no ${name}.json`);
  return report;
}

export const readFigures: FiguresOf = (name) => {
  const { conditions, figures } = needed(name);
  return { ...conditions, ...figures };
};

/** The rows of a part of `npm run eval`, the full cache's first, then share by share, the best first. */
const programs = (part: string, blocks: string) => () => {
  const rows = readResults(RESULTS).rows.filter((row) => row.part === part);
  const full = rows.filter(({ share }) => share === 1);
  const shares = [...new Set(rows.map(({ share }) => share))].filter((share) => share < 1);
  const others = shares.flatMap((share) =>
    rows.filter((row) => row.share === share).toSorted((a, b) => b.exact - a.exact),
  );
  return markdown(`verbose, 40 lines, ${blocks}`, [...full, ...others]);
};

/** Tables by the name that a template gives them. */
export const TABLES: Readonly<Record<string, () => string>> = {
  main: programs('main', 'blocks of 16'),
  paired: programs('paired', 'blocks of 16'),
  ablation: programs('ablation', 'blocks of 16'),
  pressure: programs('pressure', 'blocks of 16'),
  vllm: programs('vllm', 'blocks of 32, vLLM'),
  grid: () => gridTable(readResults(RESULTS).rows),
  budgets: () =>
    BUDGETS.flatMap((name) => readOnce(name) ?? [])
      .map(({ rows }) => budgetTable(rows as BudgetRow[]))
      .join('\n'),
  fidelity: () => fidelityTable(needed('fidelity').rows as Row[]),
  stories: () => storyTable('16 people', readResults(RESULTS).stories),
};
