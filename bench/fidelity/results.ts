import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { RECENT_TOKENS, SINK_TOKENS } from '../eval/backend.ts';
import { markdownTable } from '../markdown-table.ts';
import { round } from '../statistics.ts';
import { BLOCK_SIZE } from '../vllm/process.ts';
import { describe } from './figures.ts';
import type { Row, Sizes } from './measure.ts';

export const conditionsOf = ({ sequences, tokens }: Sizes, seed: number, vllm: string) => ({
  seed,
  model: 'SmolLM2-135M-Instruct (from GGUF Q4_1, in float32)',
  vllm,
  sequences: `${sequences} of ${tokens} tokens, sampled at temperature 1 with a full cache, the end of a sequence is ignored`,
  repeated:
    'the same tokens forced one by one in decode, all sequences and candidates at once, lockstep, every step measured',
  protected: `prompt, first ${SINK_TOKENS} tokens, newest ${RECENT_TOKENS} tokens`,
  budget: `share of the output blocks of a full cache, in blocks of ${BLOCK_SIZE}; all resident blocks beyond the prompt count`,
  figures:
    'log-probability of each token with the full cache less that with the candidate, after the budget is exceeded; mean over sequences, 95 % interval by paired t',
});

/** Of the last report in `folder`, if it has this seed and these sizes. */
export function earlierRows(folder: string, seed: number, sizes: Sizes): Row[] {
  const file = join(folder, 'fidelity.json');
  if (!existsSync(file)) return [];
  const { conditions, rows } = JSON.parse(readFileSync(file, 'utf8')) as Record<
    'conditions',
    Record<string, unknown>
  > & {
    rows: Row[];
  };
  const wanted = conditionsOf(sizes, seed, '');
  return conditions['seed'] === seed && conditions['sequences'] === wanted.sequences ? rows : [];
}

export function figuresOf(rows: readonly Row[]): Record<string, number> {
  return Object.fromEntries(
    rows.flatMap((row) => {
      const name = (figure: string) => `${row.key}_${figure}_${Math.round(row.share * 100)}`;
      return [
        [name('extra_nats'), round(row.extraNats.mean, 4)],
        [name('extra_nats_low'), round(row.extraNats.low, 4)],
        [name('extra_nats_high'), round(row.extraNats.high, 4)],
        [name('same_most_likely'), round(row.sameMostLikely, 4)],
      ];
    }),
  );
}

/** The rows as a table for docs/measured.md. */
export function markdown(rows: readonly Row[]): string {
  const titles = [
    'SmolLM2-135M',
    'output blocks, mean / peak',
    'extra nats per token (95 % interval)',
    'perplexity',
    'same most likely token',
    'more than `crystal`',
  ];
  const lines = rows
    .toSorted((a, b) => a.share - b.share || a.extraNats.mean - b.extraNats.mean)
    .map((row) => [
      `${row.title}, ${Math.round(row.share * 100)} %`,
      `${row.meanOutputBlocks.toFixed(1)} / ${row.peakOutputBlocks}`,
      describe(row.extraNats),
      `x ${row.perplexityRatio.toFixed(2)}`,
      `${(100 * row.sameMostLikely).toFixed(1)} %`,
      row.overCrystal === undefined ? '' : describe(row.overCrystal),
    ]);
  return markdownTable(titles, lines);
}
