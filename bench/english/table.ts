import { type Column, percent, tableOf } from '../eval/table.ts';
import { STORY_CLASSES, type StoryDetails } from './row.ts';

const COLUMNS: readonly Column<StoryDetails>[] = [
  ['kept blocks', (row) => `${row.budget_blocks ?? 'all'}`],
  ['stories', (row) => `${row.stories}`],
  [
    'exact answers (95 % interval)',
    (row) => `${percent(row.exact)} (${percent(row.exact_low)} to ${percent(row.exact_high)})`,
  ],
  ['to full (at least)', (row) => `${points(row.to_full)} (${points(row.to_full_low)})`],
  [STORY_CLASSES.join(' / '), (row) => STORY_CLASSES.map((of) => shareOf(row[`right_${of}`])).join(' / ')],
  ['length ratio', (row) => row.length_ratio.toFixed(2)],
  ['thinking never ended', (row) => percent(row.unended_share)],
  ['extra tokens', (row) => percent(row.extra_tokens_share)],
  ['mean / peak blocks', (row) => `${row.mean_blocks.toFixed(1)} / ${row.peak_blocks}`],
];

const shareOf = (right: number | null) => (right === null ? 'none asked' : percent(right));
const points = (share: number) => (100 * share).toFixed(0);

/** A Markdown table of the rows of one number of people. */
export function storyTable(title: string, rows: readonly StoryDetails[]): string {
  return tableOf(title, COLUMNS, rows);
}
