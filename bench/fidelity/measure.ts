import { type Candidate, CRYSTAL } from '../eval/candidates.ts';
import { type Interval, mean, pairedMean, round } from '../statistics.ts';
import { BLOCK_SIZE } from '../vllm/process.ts';
import { describe, type Fidelity, fidelity } from './figures.ts';
import { encodePrompts, type Repetition, type Sequence, startSpeaker } from './speaker.ts';

export interface Sizes {
  sequences: number;
  /** Of each sequence. */
  tokens: number;
  /** Of the output blocks with a full cache, 0 to 1. */
  shares: readonly number[];
}

/** A candidate at a share of the output. */
export interface Row extends Fidelity {
  key: string;
  title: string;
  share: number;
  budgetBlocks: number;
  /** How much more it loses than `crystal` on the same sequences, in nats per token. */
  overCrystal: Interval | undefined;
  meanOutputBlocks: number;
  peakOutputBlocks: number;
  fullOutputBlocks: number;
}

export interface Task {
  python: string;
  model: string;
  prompts: readonly string[];
  candidates: readonly Candidate[];
  sizes: Sizes;
  seed: number;
  say(text: string): void;
}

/** The rows of one share after the other; `vllm` is its version. */
export async function* measure(task: Task): AsyncGenerator<{ vllm: string; rows: Row[] }> {
  const { prompts, candidates, sizes, seed, say, ...engine } = task;
  const encoded = encodePrompts(engine.model, prompts);
  const maxModelLen = Math.max(...encoded.map((prompt) => prompt.length)) + sizes.tokens;
  say('starting vLLM');
  const requests = prompts.length * candidates.length;
  const speaker = await startSpeaker(candidates, { ...engine, maxModelLen, requests, say });
  try {
    say(`writing ${prompts.length} sequences of ${sizes.tokens} tokens`);
    const sequences = await speaker.write(encoded, sizes.tokens, seed);
    say(`written, ${round(-mean(sequences.flatMap(({ spoken }) => spoken.logprobs)))} nats per token`);
    const fullOutputBlocks = mean(sequences.map(outputBlocks));
    const keys = candidates.map(({ key }) => key);
    for (const share of sizes.shares) {
      const budgetBlocks = Math.ceil(share * fullOutputBlocks);
      const run = await speaker.repeat(sequences, keys, budgetBlocks * BLOCK_SIZE);
      say(`${share * 100} %: ${round(run.seconds, 0)} s, ${run.evictedBlocks} blocks evicted, ${run.merges} merges`);
      const rows = candidates.map(({ key, title }) =>
        rowOf({ key, title, share, budgetBlocks, fullOutputBlocks }, sequences, run.byProfile.get(key)!),
      );
      const crystal = rows.find(({ key }) => key === CRYSTAL.key);
      for (const row of rows) {
        if (crystal !== undefined && row !== crystal) row.overCrystal = difference(row, crystal);
        say(`${row.title} at ${share * 100} %: ${describe(row.extraNats)} extra nats per token`);
      }
      yield { vllm: speaker.vllmVersion, rows };
    }
  } finally {
    await speaker.close();
  }
}

const difference = (row: Row, base: Row): Interval =>
  pairedMean(row.perSequence.map((value, i) => value - base.perSequence[i]!));

/** Blocks beyond the prompt's at the end; the last token is never computed. */
function outputBlocks({ prompt, tokens }: Sequence): number {
  const blocks = (count: number) => Math.ceil(count / BLOCK_SIZE);
  return blocks(prompt.length + tokens.length - 1) - blocks(prompt.length);
}

function rowOf(
  what: Pick<Row, 'key' | 'title' | 'share' | 'budgetBlocks' | 'fullOutputBlocks'>,
  sequences: readonly Sequence[],
  { spoken, memory }: Repetition,
): Row {
  const pairs = sequences.map((it, i) => ({ promptTokens: it.prompt.length, full: it.spoken, other: spoken[i]! }));
  return {
    ...what,
    ...fidelity(pairs, what.budgetBlocks, BLOCK_SIZE),
    overCrystal: undefined,
    meanOutputBlocks: round(memory.meanOutputBlocks, 1),
    peakOutputBlocks: memory.peakOutputBlocks,
  };
}
