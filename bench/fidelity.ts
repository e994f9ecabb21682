/** How much evictions and merges change what a real language model says, in vLLM on the CPU; see `--help`. */
import { parseArgs } from 'node:util';
import { smolLm2Folder } from '../model/english/folder.ts';
import { CANDIDATES, FULL } from './fidelity/candidates.ts';
import { measure, type Row, type Sizes } from './fidelity/measure.ts';
import { PROMPTS } from './fidelity/prompts.ts';
import { conditionsOf, earlierRows, figuresOf, markdown } from './fidelity/results.ts';
import { writeReport } from './report.ts';
import { vllmPython } from './vllm/process.ts';
import { chooseSeed } from './workload.ts';

const ALL: Sizes = { sequences: 9, tokens: 640, shares: [0.25, 0.5] };
const QUICK: Sizes = { sequences: 3, tokens: 256, shares: [0.5] };
/** Trials have a seed of their own: nothing is chosen by what is reported. */
const TRIAL_SEED = 1;
const KEYS = CANDIDATES.map(({ key }) => key);

const HELP = `SmolLM2-135M-Instruct writes texts with a full cache, and is then made to write them again, token by token, while the
policy service evicts or merges blocks. Tells how much less likely the same tokens became, and writes
bench/results/fidelity.json. Takes about half an hour; the first time, vLLM is installed (6 GB).

  --quick      ${QUICK.sequences} texts of ${QUICK.tokens} tokens, to try; writes nothing
  --only A,B   these candidates: ${KEYS.join(', ')}
  --shares A,B percents of the output that stay (default: ${ALL.shares.map((share) => share * 100).join(',')})
  --seed N     seed of what is written (default: a fresh one, which is printed); with that of the last run, rows are
               added to its own
  --help       show this help
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      shares: { type: 'string' },
      seed: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const only = values.only?.split(',') ?? KEYS;
  const unknown = only.find((key) => !KEYS.includes(key));
  if (unknown !== undefined) throw new RangeError(`--only must be of ${KEYS.join(', ')}, got "${unknown}"`);
  const trial = values.quick;
  const seed = chooseSeed(values.seed ?? (trial ? `${TRIAL_SEED}` : undefined));
  const sizes = trial ? QUICK : ALL;
  const shares = values.shares?.split(',').map((percent) => Number(percent) / 100) ?? sizes.shares;
  const wrong = shares.find((share) => !(share > 0 && share < 1));
  if (wrong !== undefined) throw new RangeError(`--shares must be percents between 0 and 100, got "${values.shares}"`);
  const started = performance.now();
  const say = (text: string) =>
    process.stdout.write(`${((performance.now() - started) / 1000).toFixed(0).padStart(4)} s  ${text}\n`);
  say(`seed ${seed}`);
  const python = vllmPython();
  const model = smolLm2Folder();
  const candidates = [FULL, ...CANDIDATES.filter(({ key }) => only.includes(key))];
  const prompts = PROMPTS.slice(0, sizes.sequences);
  let rows: Row[] = trial ? [] : earlierRows(seed, sizes);
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
    if (!trial)
      writeReport('fidelity', { conditions: conditionsOf(sizes, seed, vllm), figures: figuresOf(rows), rows });
  }
  process.stdout.write(markdown(rows));
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
