/** Measures what cache policies cost in answers, under equal conditions; see `--help`. */
import { parseArgs } from 'node:util';
import { type Form, MOST_LINES } from '../model/form.ts';
import { type Cluster, startCluster } from '../scripts/cluster.ts';
import { budgetBlocks } from './ask.ts';
import { writeReport } from './report.ts';
import { countExact, EVERY_STEP, generatedTokens, type Round, runRound } from './rounds.ts';
import { add, mean, round, wilson } from './statistics.ts';
import { answerTokenLimit, chooseSeed, makePrograms, reportName, VERBOSE_HELP } from './workload.ts';

const LINES = '24,40';
const BLOCK_SIZE = 16;
/** What the engine protects beside the prompt. */
const SINK_TOKENS = 4;
const RECENT_TOKENS = 64;
const CONCURRENCY = 16;
const SHARES = [0.25, 0.4] as const;
/** What is compared: a name in figures, a name for people, and the profile. */
const CANDIDATES = [
  { key: 'window', title: 'window', profile: { policy: 'window' } },
  { key: 'random', title: 'random', profile: { policy: 'random' } },
  { key: 'h2o', title: 'h2o', profile: { policy: 'h2o' } },
  { key: 'h2o_norm', title: 'h2o-norm', profile: { policy: 'h2o-norm' } },
  { key: 'crf_1', title: 'crf, half-life 1.4', profile: { policy: 'crf', half_life_tokens: 1.4 } },
  { key: 'crf_70', title: 'crf, half-life 70', profile: { policy: 'crf', half_life_tokens: 70 } },
  { key: 'lazy', title: 'lazy', profile: { policy: 'lazy' } },
  { key: 'snapkv', title: 'snapkv', profile: { policy: 'snapkv' } },
  { key: 'crystal', title: 'crystal', profile: { policy: 'crystal' } },
  { key: 'merge', title: 'merging', profile: { policy: 'window', merge: true } },
] as const;

const HELP = `Sends programs through the whole system in lockstep: with a full cache, then with every policy at
${SHARES.map((share) => `${share * 100} %`).join(' and ')} of the thinking cache. Prints a Markdown table and writes bench/results/policies.json,
or policies-verbose.json.

  --seed N     programs to send (default: fresh ones; the seed is printed)
  --programs N how many of each length, at least 1 (default 64)
  --lines N,N  lengths of the programs, 1 to ${MOST_LINES.plain} lines each, verbose to ${MOST_LINES.verbose} (default ${LINES})
  ${VERBOSE_HELP}
  --help       this text
`;

/** Programs of one length: a row for each candidate, the full cache first. */
interface Table {
  lines: number;
  full: Row;
  rows: Row[];
}

interface Row {
  key: string;
  title: string;
  share: number;
  budget: number | undefined;
  round: Round;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      programs: { type: 'string', default: '64' },
      lines: { type: 'string', default: LINES },
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const count = Number(values.programs);
  if (!Number.isInteger(count) || count < 1) throw new RangeError(`--programs must be at least 1, got ${count}`);
  const form = values.verbose ? 'verbose' : 'plain';
  const lengths = values.lines.split(',').map(Number);
  const odd = lengths.find((lines) => !Number.isInteger(lines) || lines < 1 || lines > MOST_LINES[form]);
  if (odd !== undefined)
    throw new RangeError(
      `--lines must be 1 to ${MOST_LINES[form]} in the ${form} form, separated by commas: got ${values.lines}`,
    );
  const seed = chooseSeed(values.seed);
  process.stderr.write(`${count} ${form} programs of ${values.lines} lines each, seed ${seed}\n`);
  const cluster = await startCluster({
    config: {
      engine: {
        block_size: BLOCK_SIZE,
        pool_blocks: 4096,
        sink_tokens: SINK_TOKENS,
        recent_tokens: RECENT_TOKENS,
        lockstep: true,
        log_level: 'warn',
      },
      policy_service: { ...EVERY_STEP, default_profile: 'full', log_level: 'warn' },
      gateway: { log_level: 'warn' },
      profiles: { full: { policy: 'full' }, ...Object.fromEntries(CANDIDATES.map((it) => [it.key, it.profile])) },
    },
  });
  try {
    const tables: Table[] = [];
    for (const lines of lengths) tables.push(await measure(cluster, seed, count, lines, form));
    for (const table of tables) process.stdout.write(markdown(table));
    const path = writeReport(reportName('policies', form), {
      conditions: {
        seed,
        programs: count,
        lines: lengths.join(', '),
        form,
        block_size: BLOCK_SIZE,
        concurrency: CONCURRENCY,
        max_tokens: lengths.map((lines) => answerTokenLimit(lines, form)).join(', '),
        decoding: 'greedy, lockstep',
        protected: `prompt, first ${SINK_TOKENS} tokens, newest ${RECENT_TOKENS} tokens`,
        budget: 'all resident blocks beyond the prompt',
        sampling: 'resident blocks every 50 ms',
      },
      figures: Object.assign({}, ...tables.flatMap((table) => table.rows.map((row) => figures(row, table)))),
      rows: tables.flatMap(({ lines, rows, full }) =>
        rows.map((row) => ({ lines, ...details(row, full), answers: row.round.answers.map(perAnswer) })),
      ),
    });
    process.stderr.write(`wrote ${path}\n`);
  } finally {
    await cluster.close();
  }
}

async function measure(cluster: Cluster, seed: number, count: number, lines: number, form: Form): Promise<Table> {
  const programs = makePrograms(seed, count, lines, form);
  const run = async (key: string, title: string, share: number, budget: number | undefined): Promise<Row> => {
    process.stderr.write(`${lines} lines, ${title}${budget === undefined ? '' : ` at ${share * 100} %`} ... `);
    const cache = { profile: key, ...(budget === undefined ? {} : { budget_tokens: budget * BLOCK_SIZE }) };
    const fixed = {
      concurrency: CONCURRENCY,
      maxTokens: answerTokenLimit(lines, form),
      blockSize: BLOCK_SIZE,
      onAnswer: () => {},
    };
    const result = await runRound(cluster, { programs, cache, ...fixed });
    process.stderr.write(`${countExact(result.answers)} of ${count} exact, ${result.seconds.toFixed(0)} s\n`);
    return { key, title, share, budget, round: result };
  };
  const full = await run('full', 'full cache', 1, undefined);
  const rows = [full];
  for (const share of SHARES) {
    const budget = budgetBlocks(full.round.answers, share, BLOCK_SIZE);
    for (const { key, title } of CANDIDATES) rows.push(await run(key, title, share, budget));
  }
  return { lines, full, rows };
}

/** Everything the table says of a row. */
function details({ title, share, budget, round: it }: Row, full: Row) {
  const { answers, memory } = it;
  const exact = countExact(answers);
  const interval = wilson(exact, answers.length);
  const over = budget === undefined ? 0 : memory.peakOutputBlocks.filter((peak) => peak > budget).length;
  return {
    title,
    share,
    budget_blocks: budget ?? null,
    exact: exact / answers.length,
    exact_low: round(interval.low),
    exact_high: round(interval.high),
    length_ratio: round(generatedTokens(answers) / generatedTokens(full.round.answers)),
    unended_share: answers.filter((answer) => !answer.thinkingEnded).length / answers.length,
    probe_tokens_share: round(it.probeTokens / generatedTokens(answers)),
    mean_blocks: round(memory.meanOutputBlocks, 2),
    peak_blocks: Math.max(...memory.peakOutputBlocks),
    mean_peak_blocks: round(mean(memory.peakOutputBlocks), 2),
    over_budget_share: round(over / memory.peakOutputBlocks.length),
    evicted_blocks: it.evictedBlocks,
    preemptions: it.preemptions,
    missed_steps: it.missedSteps,
    seconds: round(it.seconds, 1),
  };
}

/** Names end with the share in percent and the length: `exact_crystal_25_lines_24`. */
function figures(row: Row, { full, lines }: Table): Record<string, number> {
  const cache = row.budget === undefined ? row.key : `${row.key}_${row.share * 100}`;
  const name = `${cache}_lines_${lines}`;
  const it = details(row, full);
  return {
    [`exact_${name}`]: round(it.exact),
    [`length_ratio_${name}`]: it.length_ratio,
    [`unended_share_${name}`]: round(it.unended_share),
    [`probe_tokens_share_${name}`]: it.probe_tokens_share,
    [`mean_blocks_${name}`]: it.mean_blocks,
    [`peak_blocks_${name}`]: it.peak_blocks,
    [`over_budget_share_${name}`]: it.over_budget_share,
  };
}

const perAnswer = ({ exact, thinkingEnded, promptTokens, generatedTokens: tokens }: Round['answers'][number]) => ({
  exact,
  thinking_ended: thinkingEnded,
  prompt_tokens: promptTokens,
  generated_tokens: tokens,
});

function markdown({ rows, full, lines }: Table): string {
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
  const head = [
    `${lines} lines`,
    'kept blocks',
    'exact answers (95 % interval)',
    'length ratio',
    'thinking never ended',
    'extra tokens (probes)',
    'mean / peak blocks',
    'ever over budget',
  ];
  const body = rows.map((row) => {
    const it = details(row, full);
    return [
      row.budget === undefined ? row.title : `${row.title}, ${percent(row.share)}`,
      it.budget_blocks ?? 'all',
      `${percent(it.exact)} (${percent(it.exact_low)} to ${percent(it.exact_high)})`,
      it.length_ratio.toFixed(2),
      percent(it.unended_share),
      percent(it.probe_tokens_share),
      `${it.mean_blocks.toFixed(1)} / ${it.peak_blocks}`,
      percent(it.over_budget_share),
    ];
  });
  const rule = head.map((_, index) => (index === 0 ? '---' : '---:'));
  const evicted = add(rows.map((row) => row.round.evictedBlocks));
  if (rows.length > 1 && evicted === 0) throw new Error('no block was evicted: the policy service decided nothing');
  return `${[head, rule, ...body].map((cells) => `| ${cells.join(' | ')} |`).join('\n')}\n\n`;
}

try {
  await main();
} catch (error) {
  process.stderr.write(`eval: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
