import { RECENT_TOKENS, SINK_TOKENS } from '../eval/backend.ts';
import { markdownTable } from '../markdown-table.ts';
import { readReport } from '../report.ts';
import { type Interval, round } from '../statistics.ts';
import { BLOCK_SIZE } from '../vllm/process.ts';
import { PUBLISHED } from './candidates.ts';
import { describe } from './figures.ts';
import type { Row } from './measure.ts';

export interface Conditions {
  /** Where the texts are from. */
  texts: string;
  model: string;
  seed: number;
  count: number;
  /** Mean tokens of a thinking. */
  thinkingTokens: number;
}

export const conditionsOf = (it: Conditions, vllm: string) => ({
  ...it,
  vllm,
  method:
    'the same tokens forced one by one in decode, lockstep, every query counted; exact divergence from the full cache',
  protected: `prompt, first ${SINK_TOKENS} tokens, newest ${RECENT_TOKENS} tokens`,
  budget: `share of each text's thinking, in blocks of ${BLOCK_SIZE}; all resident blocks beyond the prompt count`,
  figures: 'KL: nats per token after the budget was exceeded; mean over texts, 95 % interval by paired t',
});

/** Of the last report in `folder`, if it is of the same texts. */
export function earlierRows(folder: string, wanted: Conditions): readonly Row[] {
  const report = readReport<Row>('fidelity', folder);
  if (report === undefined) return [];
  return Object.entries(wanted).every(([name, value]) => report.conditions[name] === value) ? report.rows : [];
}

export function figuresOf(rows: readonly Row[]): Record<string, number> {
  const figures: Record<string, number> = {};
  for (const { key, share, klThinking, klAnswer, sameMostLikely, facts, recalled } of rows) {
    const percent = Math.round(share * 100);
    figures[`kl_${key}_${percent}`] = round(klThinking.mean, 4);
    if (klAnswer !== undefined) figures[`kl_answer_${key}_${percent}`] = round(klAnswer.mean, 4);
    figures[`same_${key}_${percent}`] = round(sameMostLikely, 4);
    figures[`facts_${key}_${percent}`] = recalled;
    figures[`facts_full_${percent}`] = facts;
    const published = rows.filter((row) => row.share === share && PUBLISHED.some((it) => it.key === row.key));
    if (published.length === 0) continue;
    figures[`kl_best_baseline_${percent}`] = round(Math.min(...published.map((row) => row.klThinking.mean)), 4);
    figures[`facts_best_baseline_${percent}`] = Math.max(...published.map((row) => row.recalled));
  }
  return figures;
}

/** The rows as a table for docs/measured.md. */
export function markdown(rows: readonly Row[]): string {
  const titles = [
    'rule',
    'blocks, mean / peak',
    'KL of the thinking (95 % interval)',
    'more than `crystal`',
    'KL of the answer',
    'same most likely token',
    'facts',
  ];
  const of = (interval: Interval | undefined) => (interval === undefined ? '' : describe(interval));
  const lines = rows
    .toSorted((a, b) => a.share - b.share || a.klThinking.mean - b.klThinking.mean)
    .map((row) => [
      `${row.title}, ${Math.round(row.share * 100)} %`,
      `${row.meanOutputBlocks.toFixed(1)} / ${row.peakOutputBlocks} of ${row.fullOutputBlocks}`,
      describe(row.klThinking),
      of(row.overCrystal),
      row.klAnswer === undefined ? '' : round(row.klAnswer.mean, 4).toFixed(4),
      `${(100 * row.sameMostLikely).toFixed(1)} %`,
      `${row.recalled} of ${row.facts}`,
    ]);
  return markdownTable(titles, lines);
}
