import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { RUN_MODEL_NAMES } from '../../scripts/run-models.ts';
import { type BudgetRow, budgetTable, reportOf } from '../budgets/results.ts';
import { storyTable } from '../english/table.ts';
import { gridTable } from '../eval/grid-table.ts';
import { readResults } from '../eval/results.ts';
import { markdown } from '../eval/table.ts';
import type { Row } from '../fidelity/measure.ts';
import { markdown as fidelityTable } from '../fidelity/results.ts';
import { RESULTS } from '../report.ts';
import type { FiguresOf } from './render.ts';

interface Written {
  conditions: Record<string, string | number | boolean>;
  figures: Record<string, number>;
  rows: unknown[];
}

const BUDGETS = RUN_MODEL_NAMES.map(reportOf);
const fileOf = (name: string) => join(RESULTS, `${name}.json`);
const reports = new Map<string, Written>();

/** Each file is read once: a template asks for dozens of figures. */
function readReport(name: string): Written {
  const known = reports.get(name);
  if (known !== undefined) return known;
  const report = JSON.parse(readFileSync(fileOf(name), 'utf8')) as Written;
  reports.set(name, report);
  return report;
}

export const readFigures: FiguresOf = (name) => {
  const { conditions, figures } = readReport(name);
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
    BUDGETS.filter((name) => existsSync(fileOf(name)))
      .map((name) => budgetTable(readReport(name).rows as BudgetRow[]))
      .join('\n'),
  fidelity: () => fidelityTable(readReport('fidelity').rows as Row[]),
  stories: () => storyTable('16 people', readResults(RESULTS).stories),
};
