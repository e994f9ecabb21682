/** Measures what cache policies cost in answers, under equal conditions; see `--help`. */
import { FORMS } from '../model/form.ts';
import { namesOf, UsageError, wholeNumber } from '../scripts/command-line.ts';
import { evaluateStories, STORY_CANDIDATES } from './english/evaluate.ts';
import { BACKENDS, CONCURRENCY, RECENT_TOKENS, SINK_TOKENS } from './eval/backend.ts';
import { gridTable } from './eval/grid-table.ts';
import { measure } from './eval/measure.ts';
import { writePlot } from './eval/plot.ts';
import { readResults, writeResults } from './eval/results.ts';
import { type Details, details } from './eval/row.ts';
import { PARTS, type Part, settingsOf } from './eval/setting.ts';
import { markdown } from './eval/table.ts';
import { type BenchRun, runBench } from './program.ts';
import { PROGRAM_SEED } from './workload.ts';

const MAX_PROGRAMS = 100_000;
const MODELS = ['crystal-mini', 'english'] as const;
const ALL = { programs: undefined, forms: undefined, only: undefined, shares: undefined };
/** Options that one of the models has. */
const OWN_OPTIONS = {
  'crystal-mini': ['part', 'programs', 'forms'],
  english: ['people', 'stories', 'tuning'],
} as const;

await runBench({
  name: 'eval',
  about: `Sends programs through the whole system in lockstep, every step measured: with a full cache, then under every policy at a
share of the thinking cache. Prints Markdown tables; with --record it also draws docs/accuracy.svg.
With --model english: stories, which the English model works through in vLLM on the CPU. Ctrl-C leaves what is done.`,
  options: {
    model: { type: 'string', default: 'crystal-mini', value: 'NAME', help: `${MODELS[0]} (default) or ${MODELS[1]}` },
    people: { type: 'string', value: 'N', help: 'english: people in each story (default: 16)' },
    stories: { type: 'string', value: 'N', help: 'english: how many (default: 200)' },
    tuning: {
      type: 'boolean',
      default: false,
      help: 'english: stories for choosing, of which none is ever among those of a reported figure',
    },
    part: {
      type: 'string',
      value: 'NAME',
      help: `what to measure (default: main); every part keeps its own rows in the results
  main      verbose, 40 lines, blocks of 16, 25 and 40 %, all policies and the oracle, 200 programs
  tokens    crystal and rules at token level, at 25 % otherwise as main, 32 programs
  ablation  as main with parts of the policy crystal taken out, 64 programs
  grid      both forms, 24, 32 and 40 lines, 15 to 60 %, blocks of 16 and 32, 32 programs each
  paired    crystal and the full cache on 600 programs, otherwise as main
  pressure  a pool for a half and a third of what runs: nothing evicted, and the default profile
  sweep     half-lives, probe intervals and decays, 32 programs; use a seed of its own`,
    },
    backend: {
      type: 'string',
      value: 'NAME',
      help: `embedded (default), or vllm: on the CPU, verbose, 40 lines, blocks of 32, 25 and 40 %, 32 programs;
english: vllm (default), or embedded, with weights in 8 bits`,
    },
    programs: { type: 'string', value: 'N', help: 'how many, at least 1' },
    forms: { type: 'string', value: 'A,B', help: 'these forms (plain, verbose)' },
    only: {
      type: 'string',
      value: 'A,B',
      help: `these candidates, by the key in the results (crystal, h2o, oracle, ...);
english: ${STORY_CANDIDATES.map(({ key }) => key).join(', ')}`,
    },
    shares: { type: 'string', value: '25,40', help: 'these shares, in percent (english: 25,50)' },
  },
  notes: "A run with the seed and the number of programs of the part's last one adds to its rows.",
  seed: PROGRAM_SEED,
  records: true,
  trial: ({ tuning }) => (tuning ? { because: '--tuning is for choosing' } : undefined),
  run: evaluate,
});

interface EvalValues {
  model: string;
  people?: string;
  stories?: string;
  tuning: boolean;
  part?: string;
  backend?: string;
  programs?: string;
  forms?: string;
  only?: string;
  shares?: string;
}

async function evaluate(values: EvalValues, run: BenchRun): Promise<void> {
  const model = namesOf('model', [values.model], MODELS)[0]!;
  const strange = MODELS.flatMap((other) => (other === model ? [] : OWN_OPTIONS[other])).find((name) => values[name]);
  if (strange !== undefined) throw new UsageError(`--${strange} is not for the model ${model}`);
  const shares = values.shares?.split(',').map((percent) => Number(percent) / 100);
  const wrong = shares?.find((share) => !(share > 0 && share < 1));
  if (wrong !== undefined) throw new UsageError(`--shares must be percents between 0 and 100, got "${values.shares}"`);
  if (model === 'english') await evaluateStories({ ...values, shares }, run);
  else await evaluatePrograms(values, shares, run);
}

async function evaluatePrograms(
  values: EvalValues,
  shares: readonly number[] | undefined,
  { seed, folder, recorded }: BenchRun,
): Promise<void> {
  const backend = namesOf('backend', [values.backend ?? 'embedded'], BACKENDS)[0]!;
  const known = PARTS.filter((name) => (name === 'vllm') === (backend === 'vllm'));
  const part = known.find((name) => name === (values.part ?? known[0]));
  if (part === undefined) {
    throw new UsageError(`--part must be one of ${known.join(', ')} with the backend ${backend}, got "${values.part}"`);
  }
  const programs =
    values.programs === undefined ? undefined : wholeNumber('programs', values.programs, 1, MAX_PROGRAMS);
  const forms = values.forms === undefined ? undefined : namesOf('forms', values.forms.split(','), FORMS);
  const keys = settingsOf(part, ALL).flatMap(({ candidates, oracle }) => [
    ...candidates.map(({ key }) => key),
    ...(oracle ? ['oracle'] : []),
  ]);
  const only = values.only === undefined ? undefined : namesOf('only', values.only.split(','), [...new Set(keys)]);
  const settings = settingsOf(part, { programs, forms, only, shares });
  if (settings.every((it) => it.shares.length === 0 || (it.candidates.length === 0 && !it.oracle))) {
    throw new UsageError(`--forms, --only and --shares leave nothing of the part ${part}`);
  }
  const log = (text: string) => void process.stderr.write(text);
  log(`part ${part}\n`);
  const rows: Details[] = [];
  let path = '';
  for (const setting of settings) {
    const first = rows.length;
    // Written after each row, so that what took long is not lost.
    await measure(
      backend,
      setting,
      seed + setting.seedOffset,
      (row, full) => {
        rows.push(details(row, full));
        path = writeResults(folder, part, conditions(part, seed), rows);
      },
      log,
    );
    const { form, lines, blockSize } = setting;
    process.stdout.write(`${markdown(`${form}, ${lines} lines, blocks of ${blockSize}`, rows.slice(first))}\n`);
  }
  if (part === 'grid') process.stdout.write(`${gridTable(readResults(folder).rows)}\n`);
  if (rows.some((row) => row.share < 1) && rows.every((row) => row.evicted_blocks === 0)) {
    throw new Error('no block was evicted: the policy service decided nothing');
  }
  log(`wrote ${path}${recorded ? ` and ${writePlot(folder)}` : ''}\n`);
}

function conditions(part: Part, seed: number) {
  return {
    seed,
    what: `part ${part} of npm run eval`,
    decoding: `greedy, lockstep, every step measured, ${CONCURRENCY} requests at a time`,
    protected: `prompt, first ${SINK_TOKENS} tokens, newest ${RECENT_TOKENS} tokens`,
    budget:
      'share of the mean thinking blocks of the same programs with a full cache; all resident blocks beyond the prompt count',
    sampling: 'resident blocks every 50 ms',
  };
}
