import { markdownTable } from '../markdown-table.ts';
import type { Details } from './row.ts';

export const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;

/** A column of a table of measured rows: its head, and a row's cell. */
export type Column<Row> = readonly [head: string, cell: (row: Row) => string];

const COLUMNS: readonly Column<Details>[] = [
  ['kept blocks', (row) => `${row.budget_blocks ?? 'all'}`],
  [
    'exact answers (95 % interval)',
    (row) => `${percent(row.exact)} (${percent(row.exact_low)} to ${percent(row.exact_high)})`,
  ],
  ['cold / hub / last', (row) => [row.right_cold, row.right_hub, row.right_last].map(percent).join(' / ')],
  ['length ratio', (row) => row.length_ratio.toFixed(2)],
  ['thinking never ended', (row) => percent(row.unended_share)],
  ['extra tokens', (row) => percent(row.extra_tokens_share)],
  ['preemptions', (row) => `${row.preemptions}`],
  ['mean / peak blocks', (row) => `${row.mean_blocks.toFixed(1)} / ${row.peak_blocks}`],
];

/** A Markdown table of one setting's rows. */
export function markdown(title: string, rows: readonly Details[]): string {
  return tableOf(title, COLUMNS, rows);
}

/** The first column names what was measured, and at which share of the cache. */
export function tableOf<Row extends { title: string; share: number }>(
  title: string,
  columns: readonly Column<Row>[],
  rows: readonly Row[],
): string {
  return markdownTable(
    [title, ...columns.map(([head]) => head)],
    rows.map((row) => [
      row.share === 1 ? row.title : `${row.title}, ${percent(row.share)}`,
      ...columns.map(([, cell]) => cell(row)),
    ]),
  );
}
