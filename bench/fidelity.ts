/** How much evictions and merges change what a real language model says, in vLLM on the CPU; see `--help`. */

import { smolLm2Folder } from '../model/english/folder.ts';
import { namesOf, UsageError } from '../scripts/command-line.ts';
import { CANDIDATES, FULL } from './fidelity/candidates.ts';
import { measure, type Sizes } from './fidelity/measure.ts';
import { PROMPTS } from './fidelity/prompts.ts';
import { conditionsOf, earlierRows, figuresOf, markdown } from './fidelity/results.ts';
import { type BenchRun, runBench } from './program.ts';
import { vllmPython } from './vllm/process.ts';

const ALL: Sizes = { sequences: 9, tokens: 640, shares: [0.25, 0.5] };
const QUICK: Sizes = { sequences: 3, tokens: 256, shares: [0.5] };
/** Trials have a seed of their own: nothing is chosen by what is reported. */
const TRIAL_SEED = 1;
const KEYS = CANDIDATES.map(({ key }) => key);

await runBench({
  name: 'fidelity',
  about: `SmolLM2-135M-Instruct writes texts with a full cache, and is then made to write them again, token by token, while the
policy service evicts or merges blocks. Tells how much less likely the same tokens became. Takes about half an hour; the first
time, vLLM is installed (6 GB).`,
  options: {
    quick: { type: 'boolean', default: false, help: `${QUICK.sequences} texts of ${QUICK.tokens} tokens, to try` },
    only: { type: 'string', value: 'A,B', help: `these candidates: ${KEYS.join(', ')}` },
    shares: {
      type: 'string',
      value: 'A,B',
      help: `percents of the output that stay (default: ${ALL.shares.map((share) => share * 100).join(',')})`,
    },
  },
  notes: 'With the seed of the last run, rows are added to its own.',
  seed: { of: 'what is written', default: 'fresh' },
  records: true,
  trial: ({ quick }) => (quick ? { because: '--quick measures less', seed: TRIAL_SEED } : undefined),
  run: fidelity,
});

async function fidelity(
  values: { quick: boolean; only?: string; shares?: string },
  { seed, trial, folder, say, report }: BenchRun,
): Promise<void> {
  const only = namesOf('only', values.only?.split(',') ?? [], KEYS);
  const sizes = trial ? QUICK : ALL;
  const shares = values.shares?.split(',').map((percent) => Number(percent) / 100) ?? sizes.shares;
  const wrong = shares.find((share) => !(share > 0 && share < 1));
  if (wrong !== undefined) throw new UsageError(`--shares must be percents between 0 and 100, got "${values.shares}"`);
  const python = vllmPython();
  const model = smolLm2Folder();
  const candidates = [FULL, ...CANDIDATES.filter(({ key }) => only.includes(key))];
  const prompts = PROMPTS.slice(0, sizes.sequences);
  let rows = earlierRows(folder, seed, sizes);
  for await (const { vllm, rows: more } of measure({
    python,
    model,
    prompts,
    candidates,
    sizes: { ...sizes, shares },
    seed,
    say,
  })) {
    rows = [...rows.filter((row) => !more.some(({ key, share }) => key === row.key && share === row.share)), ...more];
    report({ conditions: conditionsOf(sizes, seed, vllm), figures: figuresOf(rows), rows });
  }
  process.stdout.write(markdown(rows));
}
