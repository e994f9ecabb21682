/** Measures what cache policies cost in answers, under equal conditions; see `--help`. */
import { parseArgs } from 'node:util';
import { FORMS } from '../model/form.ts';
import { BACKENDS, CONCURRENCY, RECENT_TOKENS, SINK_TOKENS } from './eval/backend.ts';
import { gridTable } from './eval/grid-table.ts';
import { measure } from './eval/measure.ts';
import { writePlot } from './eval/plot.ts';
import { readResults, writeResults } from './eval/results.ts';
import { type Details, details } from './eval/row.ts';
import { PARTS, type Part, settingsOf } from './eval/setting.ts';
import { markdown } from './eval/table.ts';
import { chooseSeed } from './workload.ts';

const HELP = `Sends programs through the whole system in lockstep, every step measured: with a full cache, then under every
policy at a share of the thinking cache. Prints Markdown tables, and writes bench/results/eval.json and docs/accuracy.svg.

  --part NAME    what to measure (default main); every part keeps its own rows in the results
                   main      verbose, 40 lines, blocks of 16, 25 and 40 %, all policies and the oracle, 200 programs
                   ablation  the same with parts of the policy crystal taken out, 64 programs
                   grid      both forms, 24, 32 and 40 lines, 15 to 60 %, blocks of 16 and 32, 32 programs each
                   paired    crystal and the full cache on 600 programs, otherwise as main
                   pressure  a pool for a half and a third of what runs: nothing evicted, and the default profile
                   sweep     half-lives, probe intervals and decays, 32 programs; use a seed of its own
  --backend NAME embedded (default), or vllm: on the CPU, verbose, 40 lines, blocks of 32, 25 and 40 %, 32 programs
  --seed N       programs to send (default: fresh ones; the seed is printed)
  --programs N   how many, at least 1
  --forms A,B    these forms (plain, verbose)
  --only A,B     these candidates, by the key in the results (crystal, h2o, oracle, ...)
  --shares 25,40 these shares, in percent
  A run with the seed and the number of programs of the part's last one adds to its rows.
  --help         show this help
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      part: { type: 'string' },
      seed: { type: 'string' },
      programs: { type: 'string' },
      backend: { type: 'string', default: 'embedded' },
      forms: { type: 'string' },
      only: { type: 'string' },
      shares: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const backend = BACKENDS.find((name) => name === values.backend);
  if (backend === undefined) {
    throw new RangeError(`--backend must be one of ${BACKENDS.join(', ')}, got "${values.backend}"`);
  }
  const known = PARTS.filter((name) => (name === 'vllm') === (backend === 'vllm'));
  const part = known.find((name) => name === (values.part ?? known[0]));
  if (part === undefined) {
    throw new RangeError(`--part must be one of ${known.join(', ')} with the backend ${backend}, got "${values.part}"`);
  }
  const programs = values.programs === undefined ? undefined : Number(values.programs);
  if (programs !== undefined && !(Number.isInteger(programs) && programs >= 1)) {
    throw new RangeError(`--programs must be an integer of at least 1, got "${values.programs}"`);
  }
  const shares = values.shares?.split(',').map((percent) => Number(percent) / 100);
  const forms = values.forms?.split(',').map((name) => {
    const form = FORMS.find((it) => it === name);
    if (form === undefined) throw new RangeError(`--forms must be of ${FORMS.join(', ')}, got "${name}"`);
    return form;
  });
  const settings = settingsOf(part, { programs, forms, only: values.only?.split(','), shares });
  if (settings.every((it) => it.shares.length === 0 || (it.candidates.length === 0 && !it.oracle))) {
    throw new RangeError(`--forms, --only and --shares leave nothing of the part ${part}`);
  }
  const seed = chooseSeed(values.seed);
  const log = (text: string) => void process.stderr.write(text);
  log(`part ${part}, seed ${seed}\n`);
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
        path = writeResults(part, conditions(part, seed), rows);
      },
      log,
    );
    const { form, lines, blockSize } = setting;
    process.stdout.write(`${markdown(`${form}, ${lines} lines, blocks of ${blockSize}`, rows.slice(first))}\n`);
  }
  if (part === 'grid') process.stdout.write(`${gridTable(readResults().rows)}\n`);
  if (rows.some((row) => row.share < 1) && rows.every((row) => row.evicted_blocks === 0)) {
    throw new Error('no block was evicted: the policy service decided nothing');
  }
  log(`wrote ${path} and ${writePlot()}\n`);
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

try {
  await main();
} catch (error) {
  process.stderr.write(`eval: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
