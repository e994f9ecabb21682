/** How much evictions and merges change what a real language model says, in vLLM on the CPU; see `--help`. */

import { basename } from 'node:path';
import { type ChatTokenizer, loadTokenizer } from '../engine/http/tokenizer.ts';
import { englishFolder, smolLm2Folder } from '../model/english/folder.ts';
import { namesOf, UsageError, wholeNumber } from '../scripts/command-line.ts';
import { makeStories, storySeed } from './english/workload.ts';
import { CANDIDATES, FULL, SWEEP } from './fidelity/candidates.ts';
import { besideCrystal, measure, type Row } from './fidelity/measure.ts';
import { type Conditions, conditionsOf, earlierRows, figuresOf, markdown } from './fidelity/results.ts';
import { type Speaker, startSpeaker } from './fidelity/speaker.ts';
import { writeStories } from './fidelity/stories.ts';
import { chooseTexts, readLines, type Text, THINKING_TOKENS } from './fidelity/texts.ts';
import { type BenchRun, runBench } from './program.ts';
import { mean, round } from './statistics.ts';
import { MAX_SEQUENCES, vllmPython } from './vllm/process.ts';

const SHARES = [0.15, 0.25, 0.5];
const COUNT = { usual: 8, quick: 3 };
const HALVES = ['all', 'even', 'odd'] as const;
/** Trials have a seed of their own: nothing is chosen by what is reported. */
const TRIAL_SEED = 1;
const ALL = [...CANDIDATES, ...SWEEP];
/** Prompt, answer and questions of a text whose thinking is the longest. */
const BESIDE_THINKING = 700;
const PEOPLE = 16;
/** The most that the model may write of a story. */
const STORY_TOKENS = 1100;

await runBench({
  name: 'fidelity',
  about: `A language model is made to say texts, token by token, while the policy service evicts or merges what is in its cache. Tells
how far its predictions diverge from those with a full cache, and which facts it recalls that the thinking said once. The texts are
stories that the English model thought through, or those of --texts. Takes an hour or two; vLLM is installed the first time (6 GB).`,
  options: {
    quick: { type: 'boolean', default: false, help: `${COUNT.quick} texts at 50 %, to try` },
    texts: {
      type: 'string',
      value: 'FILE.jsonl',
      help: `texts for SmolLM2-135M-Instruct instead: lines with question, thinking and answer; of ${THINKING_TOKENS.least} to ${THINKING_TOKENS.most} tokens of thinking`,
    },
    half: {
      type: 'string',
      value: 'even|odd',
      help: 'only these lines of the file: choose by one half, report the other',
    },
    count: { type: 'string', value: 'N', help: `texts, 3 to ${MAX_SEQUENCES} (default: ${COUNT.usual})` },
    only: { type: 'string', value: 'A,B', help: `these rules: ${ALL.map(({ key }) => key).join(', ')}` },
    shares: {
      type: 'string',
      value: 'A,B',
      help: `percents of the thinking that stay (default: ${SHARES.map((share) => share * 100).join(',')})`,
    },
  },
  notes: 'With the texts of the last run, rows are added to its own.',
  seed: { of: 'which texts', default: 'fresh' },
  records: true,
  trial: ({ quick }) => (quick ? { because: '--quick measures less', seed: TRIAL_SEED } : undefined),
  run: fidelity,
});

async function fidelity(
  values: { quick: boolean; texts?: string; half?: string; count?: string; only?: string; shares?: string },
  { seed, trial, folder, say, report }: BenchRun,
): Promise<void> {
  const named = namesOf(
    'only',
    values.only?.split(',') ?? [],
    ALL.map(({ key }) => key),
  );
  const candidates = values.only === undefined ? [FULL, ...CANDIDATES] : ALL.filter(({ key }) => named.includes(key));
  const shares = values.shares?.split(',').map((percent) => Number(percent) / 100) ?? (trial ? [0.5] : SHARES);
  const wrong = shares.find((share) => !(share > 0 && share < 1));
  if (wrong !== undefined) throw new UsageError(`--shares must be percents between 0 and 100, got "${values.shares}"`);
  const usual = trial ? COUNT.quick : COUNT.usual;
  const count = values.count === undefined ? usual : wholeNumber('count', values.count, 3, MAX_SEQUENCES);
  const half = HALVES.find((name) => name === (values.half ?? 'all'));
  if (half === undefined) throw new UsageError(`--half must be even or odd, got "${values.half}"`);
  if (values.half !== undefined && values.texts === undefined) throw new UsageError('--half is of --texts');
  const lines = values.texts === undefined ? undefined : readLines(values.texts, half);
  const python = vllmPython();
  const model = lines === undefined ? englishFolder() : smolLm2Folder();
  const tokenizer = loadTokenizer(model);
  const chosen = lines && chooseTexts(lines, tokenizer, count, seed);
  if (chosen !== undefined && chosen.length < 3) {
    throw new UsageError(`--texts ${values.texts}: only ${chosen.length} texts are long enough, at least 3 are needed`);
  }
  say('starting vLLM');
  const maxTokens = (lines === undefined ? STORY_TOKENS : THINKING_TOKENS.most) + BESIDE_THINKING;
  const requests = Math.min(MAX_SEQUENCES, count * candidates.length);
  const thinks = lines === undefined;
  const speaker = await startSpeaker(candidates, { python, model, thinks, maxTokens, requests, say });
  try {
    const texts = chosen ?? (await storiesOf(speaker, tokenizer, count, seed, say));
    const conditions: Conditions = {
      texts: values.texts === undefined ? `stories of ${PEOPLE} people` : `${basename(values.texts)}, ${half} lines`,
      model: `${lines === undefined ? 'English model' : 'SmolLM2-135M-Instruct'} (from GGUF Q4_1, in float32)`,
      seed,
      count: texts.length,
      thinkingTokens: round(mean(texts.map(({ thinking }) => thinking)), 0),
    };
    let rows: readonly Row[] = earlierRows(folder, conditions);
    for await (const more of measure(speaker, { texts, candidates, shares, say })) {
      const isNew = ({ key, share }: Row) => more.some((row) => key === row.key && share === row.share);
      rows = besideCrystal([...rows.filter((row) => !isNew(row)), ...more]);
      const { vllmVersion } = speaker;
      report({ conditions: conditionsOf(conditions, vllmVersion), figures: figuresOf(rows), rows });
    }
    process.stdout.write(markdown(rows));
  } finally {
    await speaker.close();
  }
}

async function storiesOf(
  speaker: Speaker,
  tokenizer: ChatTokenizer,
  count: number,
  seed: number,
  say: (text: string) => void,
): Promise<Text[]> {
  say(`thinking through ${count} stories`);
  const stories = makeStories(storySeed(seed, false), count, PEOPLE);
  const texts = await writeStories(speaker, tokenizer, stories, STORY_TOKENS, seed);
  say(`${texts.length} of them came to an answer`);
  if (texts.length < 3)
    throw new Error(`the model answered ${texts.length} of ${count} stories: at least 3 are needed`);
  return texts;
}
