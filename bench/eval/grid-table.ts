import { markdownTable } from '../markdown-table.ts';
import { BASELINES, CRYSTAL, EVICTING } from './candidates.ts';
import type { Details } from './row.ts';

const percent = (share: number) => (100 * share).toFixed(0);

/** The grid in one Markdown table: a line a setting; `crystal`, the same without merging, and the best of the baselines. */
export function gridTable(rows: readonly Details[]): string {
  const grid = rows.filter(({ part }) => part === 'grid');
  const shares = [...new Set(grid.map(({ share }) => share))].filter((share) => share < 1).sort((a, b) => a - b);
  const settings = new Map(grid.map((row) => [`${row.form}, ${row.lines} lines, blocks of ${row.block_size}`, row]));
  const lines = [...settings].map(([title, { form, lines, block_size }]) => {
    const own = grid.filter((row) => row.form === form && row.lines === lines && row.block_size === block_size);
    return [title, best(own, ['full'], 1), ...shares.map((share) => cell(own, share))];
  });
  const head = ['exact in percent: `crystal` / without merging / best other', 'full cache'];
  return markdownTable([...head, ...shares.map((share) => `${percent(share)} %`)], lines);
}

function cell(rows: readonly Details[], share: number): string {
  return [[CRYSTAL.key], [EVICTING.key], BASELINES.map(({ key }) => key)]
    .map((keys) => best(rows, keys, share))
    .join(' / ');
}

function best(rows: readonly Details[], keys: readonly string[], share: number): string {
  const found = rows.filter((row) => row.share === share && keys.includes(row.key)).map(({ exact }) => exact);
  return found.length === 0 ? '' : percent(Math.max(...found));
}
