import type { StoryDetails } from '../english/row.ts';
import { type Report, readReport, writeReport } from '../report.ts';
import { round } from '../statistics.ts';
import { NULL_RULES } from '../token-rules.ts';
import { BASELINES, TOKEN_LEVEL } from './candidates.ts';
import type { Details } from './row.ts';
import type { Part } from './setting.ts';

interface Results extends Report {
  /** Of the programs. */
  rows: readonly Details[];
  /** Of the stories. */
  stories: readonly StoryDetails[];
}

/** The rows of the last run of every part in `folder`; none where there was no run. */
export function readResults(folder: string): Results {
  const report = readReport<Details | StoryDetails>('eval', folder);
  if (report === undefined) return { conditions: {}, figures: {}, rows: [], stories: [] };
  const isStory = (row: Details | StoryDetails): row is StoryDetails => row.part === 'english';
  return {
    ...report,
    rows: report.rows.filter((row): row is Details => !isStory(row)),
    stories: report.rows.filter(isStory),
  };
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
  return write(folder, part, conditions, [...before.rows.filter(stays), ...rows], before.stories);
}

const storyPlace = ({ backend, people, key, share }: StoryDetails) => [backend, people, key, share].join(' ');

/** The same for rows of stories. */
export function writeStories(folder: string, conditions: Report['conditions'], rows: readonly StoryDetails[]): string {
  const before = readResults(folder);
  const again = new Set<string>(rows.map(storyPlace));
  const continued = ['seed', 'stories'].every((name) => before.conditions[`english_${name}`] === conditions[name]);
  const stays = (row: StoryDetails) => continued && !again.has(storyPlace(row));
  return write(folder, 'english', conditions, before.rows, [...before.stories.filter(stays), ...rows]);
}

/** Conditions of other parts stay as they are. */
function write(
  folder: string,
  part: Part | 'english',
  conditions: Report['conditions'],
  rows: readonly Details[],
  stories: readonly StoryDetails[],
): string {
  const own = Object.entries(conditions).map(([name, value]) => [`${part}_${name}`, value]);
  const others = Object.entries(readResults(folder).conditions).filter(([name]) => !name.startsWith(`${part}_`));
  const report = {
    conditions: Object.fromEntries([...others, ...own]),
    figures: { ...figures(rows), ...storyFigures(stories) },
    rows: [...rows, ...stories],
  };
  return writeReport('eval', report, folder);
}

/** Of 16 people, on vLLM where that was run. */
export function storyFigures(rows: readonly StoryDetails[]): Record<string, number> {
  const of16 = rows.filter(({ people }) => people === 16);
  const onVllm = of16.filter(({ backend }) => backend === 'vllm');
  const main = onVllm.length > 0 ? onVllm : of16;
  const full = main.find(({ key }) => key === 'full');
  if (full === undefined) return { story_rows: rows.length };
  const result: Record<string, number> = { english_stories: full.stories, english_full: full.exact };
  for (const percent of new Set(main.filter(({ share }) => share < 1).map(({ share }) => Math.round(100 * share)))) {
    const at = main.filter(({ share }) => Math.round(100 * share) === percent);
    const crystal = at.find(({ key }) => key === 'crystal');
    if (crystal !== undefined) {
      result[`english_crystal_${percent}`] = crystal.exact;
      result[`english_crystal_to_full_low_${percent}`] = crystal.to_full_low;
      result[`english_extra_tokens_${percent}`] = crystal.extra_tokens_share;
    }
    for (const key of NULLS) {
      const row = at.find((one) => one.key === `${key}_tokens`);
      if (row !== undefined) result[`english_${key}_${percent}`] = row.exact;
    }
    const published = at.filter(({ key }) => PUBLISHED.has(key)).map(({ exact }) => exact);
    if (published.length > 0) result[`english_best_baseline_${percent}`] = Math.max(...published);
  }
  return result;
}

/** What costs nothing to do: random blocks, and the newest ones; of stories, tokens. */
const NULLS = NULL_RULES.map(({ policy }) => policy);

const PUBLISHED: ReadonlySet<string> = new Set([...BASELINES, ...TOKEN_LEVEL].map(({ key }) => key));

/** Of the verbose form, 40 lines, blocks of 16. */
export function figures(rows: readonly Details[]): Record<string, number> {
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
    for (const key of NULLS) {
      const row = found(key, share);
      if (row !== undefined) result[`${key}_exact_${name}`] = row.exact;
    }
    const oracle = found('oracle', share);
    if (oracle !== undefined) result[`oracle_exact_${name}`] = oracle.exact;
  }
  return result;
}
