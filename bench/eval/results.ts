import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Report, writeReport } from '../report.ts';
import { round } from '../statistics.ts';
import { BASELINES } from './candidates.ts';
import type { Details } from './row.ts';
import type { Part } from './setting.ts';

interface Results extends Report {
  rows: readonly Details[];
}

/** The rows of the last run of every part in `folder`; none where there was no run. */
export function readResults(folder: string): Results {
  const file = join(folder, 'eval.json');
  if (!existsSync(file)) return { conditions: {}, figures: {}, rows: [] };
  return JSON.parse(readFileSync(file, 'utf8')) as Results;
}

const place = ({ form, lines, block_size, key, share }: Details) => [form, lines, block_size, key, share].join(' ');

/**
 * Puts a part's rows in the place of its last ones; those of the same seed and number of programs stay beside them, so that
 * a run can be continued. Returns the path of the file.
 */
export function writeResults(
  folder: string,
  part: Part,
  conditions: Report['conditions'],
  rows: readonly Details[],
): string {
  const before = readResults(folder);
  const again = new Set(rows.map(place));
  const continued = before.conditions[`${part}_seed`] === conditions['seed'];
  const stays = (row: Details) =>
    row.part !== part || (continued && row.programs === rows[0]?.programs && !again.has(place(row)));
  const all = [...before.rows.filter(stays), ...rows];
  const own = Object.fromEntries(Object.entries(conditions).map(([name, value]) => [`${part}_${name}`, value]));
  const others = Object.entries(before.conditions).filter(([name]) => !name.startsWith(`${part}_`));
  const report = { conditions: { ...Object.fromEntries(others), ...own }, figures: figures(all), rows: all };
  return writeReport('eval', report, folder);
}

/** Of the verbose form, 40 lines, blocks of 16. */
function figures(rows: readonly Details[]): Record<string, number> {
  const main = rows.filter((row) => row.part === 'main');
  const found = (key: string, share: number) => main.find((row) => row.key === key && row.share === share);
  const full = found('full', 1);
  if (full === undefined) return { rows: rows.length };
  const result: Record<string, number> = { exact_full: full.exact };
  for (const row of rows) {
    if (row.part !== 'paired' || row.share === 1) continue;
    result[`paired_to_full_${100 * row.share}`] = row.to_full;
    result[`paired_to_full_low_${100 * row.share}`] = row.to_full_low;
  }
  for (const share of [0.25, 0.4]) {
    const name = `${100 * share}`;
    const crystal = found('crystal', share);
    if (crystal !== undefined) {
      result[`crystal_exact_${name}`] = crystal.exact;
      result[`crystal_relative_${name}`] = round(crystal.exact / full.exact);
      result[`crystal_to_full_low_${name}`] = crystal.to_full_low;
      result[`extra_tokens_${name}`] = crystal.extra_tokens_share;
    }
    const baselines = BASELINES.flatMap(({ key }) => found(key, share)?.exact ?? []);
    if (baselines.length > 0) result[`best_baseline_exact_${name}`] = Math.max(...baselines);
    const oracle = found('oracle', share);
    if (oracle !== undefined) result[`oracle_exact_${name}`] = oracle.exact;
  }
  return result;
}
