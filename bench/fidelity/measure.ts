import { type Candidate, CRYSTAL } from '../eval/candidates.ts';
import { type Interval, mean, pairedMean, round } from '../statistics.ts';
import { BLOCK_SIZE, MAX_SEQUENCES } from '../vllm/process.ts';
import { describe, type Fidelity, fidelity, type Thoughts, textFidelity } from './figures.ts';
import type { Speaker } from './speaker.ts';
import type { Text } from './texts.ts';

/** A candidate at a share of the thinking. */
export interface Row extends Fidelity {
  key: string;
  title: string;
  share: number;
  /** How much more it diverges than `crystal` in the thinking of the same texts, in nats per token. */
  overCrystal: Interval | undefined;
  meanOutputBlocks: number;
  peakOutputBlocks: number;
  /** With a full cache, at the end. */
  fullOutputBlocks: number;
}

export interface Task {
  texts: readonly Text[];
  candidates: readonly Candidate[];
  /** Of the thinking, 0 to 1. */
  shares: readonly number[];
  say(text: string): void;
}

/** Some rows after the other. */
export async function* measure(speaker: Speaker, { texts, candidates, shares, say }: Task): AsyncGenerator<Row[]> {
  say(`reading ${texts.length} texts with a full cache`);
  const full = await speaker.refer(texts);
  const asked = texts.reduce((sum, { facts }) => sum + facts.length, 0);
  say(
    `of ${asked} facts, the full cache recalls ${
      fidelityOf(
        texts,
        full,
        full,
        texts.map(() => 0),
      ).facts
    }`,
  );
  const some = Math.max(1, Math.floor(MAX_SEQUENCES / texts.length));
  for (const share of shares) {
    const budgets = texts.map(({ thinking }) => Math.ceil((share * thinking) / BLOCK_SIZE));
    for (let first = 0; first < candidates.length; first += some) {
      const these = candidates.slice(first, first + some);
      const keys = these.map(({ key }) => key);
      const run = await speaker.repeat(keys, budgets);
      const { seconds, evictedBlocks, merges, probes } = run;
      say(
        `${share * 100} %, ${keys}: ${round(seconds, 0)} s, ${evictedBlocks} blocks, ${merges} merges, ${probes} probes`,
      );
      yield these.map(({ key, title }): Row => {
        const { thoughts, memory } = run.byProfile.get(key)!;
        const figures = fidelityOf(texts, full, thoughts, budgets);
        say(`${title} at ${share * 100} %: ${describe(figures.klThinking)} nats per token`);
        return {
          ...{ key, title, share },
          ...figures,
          overCrystal: undefined,
          meanOutputBlocks: round(memory.meanOutputBlocks, 1),
          peakOutputBlocks: memory.peakOutputBlocks,
          fullOutputBlocks: round(mean(texts.map(outputBlocks)), 1),
        };
      });
    }
  }
}

/** The rows with what they lose over `crystal` at the same share, where that was measured. */
export function besideCrystal(rows: readonly Row[]): Row[] {
  return rows.map((row) => {
    const crystal = rows.find(({ key, share }) => key === CRYSTAL.key && share === row.share);
    if (crystal === undefined || crystal === row) return { ...row, overCrystal: undefined };
    const differences = row.perText.map(({ thinking }, i) => thinking - crystal.perText[i]!.thinking);
    return { ...row, overCrystal: pairedMean(differences) };
  });
}

function fidelityOf(
  texts: readonly Text[],
  full: readonly Thoughts[],
  other: readonly Thoughts[],
  budgets: readonly number[],
): Fidelity {
  return fidelity(texts.map((text, i) => textFidelity(text, full[i]!, other[i]!, budgets[i]!, BLOCK_SIZE)));
}

/** Blocks beyond the prompt's at the end; the last token is never computed. */
function outputBlocks({ prompt, tokens }: Text): number {
  const blocks = (count: number) => Math.ceil(count / BLOCK_SIZE);
  return blocks(prompt.length + tokens.length - 1) - blocks(prompt.length);
}
