import { markdownTable } from '../markdown-table.ts';
import type { Details } from './row.ts';

const percent = (share: number) => `${(100 * share).toFixed(0)} %`;

const COLUMNS: readonly (readonly [string, (row: Details) => string])[] = [
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
  return markdownTable(
    [title, ...COLUMNS.map(([head]) => head)],
    rows.map((row) => [
      row.share === 1 ? row.title : `${row.title}, ${percent(row.share)}`,
      ...COLUMNS.map(([, cell]) => cell(row)),
    ]),
  );
}
