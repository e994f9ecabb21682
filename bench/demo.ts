/** Shows what cache policies cost and save, through the whole system; see `--help`. */
import Table from 'cli-table3';
import { startCluster } from '../scripts/cluster.ts';
import { namesOf } from '../scripts/command-line.ts';
import { createProgress } from '../scripts/progress.ts';
import { budgetBlocks } from './ask.ts';
import { PEOPLE, STORIES, storyDemo } from './english/demo.ts';
import { BACKENDS } from './eval/backend.ts';
import { runBench } from './program.ts';
import { countExact, EVERY_STEP, generatedTokens, type Round, runRound } from './rounds.ts';
import { answerTokenLimit, makePrograms, PROGRAM_SEED, VERBOSE } from './workload.ts';

const PROGRAMS = 32;
const LINES = 24;
const BLOCK_SIZE = 16;
/** Memory for all whole caches, verbose ones too: the table shows what policies need, not what a full pool does. */
const POOL_BLOCKS = 4096;
const SHARE = 0.25;
const MODELS = ['crystal-mini', 'english'] as const;
const POLICIES = ['random', 'crf', 'crystal'] as const;

await runBench({
  name: 'demo',
  about: `Sends ${PROGRAMS} programs of ${LINES} lines at once through gateway, engine and policy service: with a full cache, then
with ${POLICIES.join(', ')} at ${SHARE * 100} % of the thinking cache. Takes a minute or two.
With --model english: ${STORIES} stories of ${PEOPLE} people in vLLM on the CPU, which takes some minutes; vLLM and the model are
installed the first time.`,
  options: {
    model: { type: 'string', default: 'crystal-mini', value: 'NAME', help: 'crystal-mini (default) or english' },
    backend: { type: 'string', default: 'vllm', value: 'NAME', help: 'english: vllm (default) or embedded' },
    verbose: VERBOSE,
  },
  seed: PROGRAM_SEED,
  records: false,
  run: ({ model, backend, verbose }, { seed }) =>
    namesOf('model', [model], MODELS)[0] === 'english'
      ? storyDemo(namesOf('backend', [backend], BACKENDS)[0]!, seed)
      : demo(verbose, seed),
});

async function demo(verbose: boolean, seed: number): Promise<void> {
  const form = verbose ? 'verbose' : 'plain';
  const programs = makePrograms(seed, PROGRAMS, LINES, form);
  process.stdout.write(`${PROGRAMS} ${form} programs of ${LINES} lines, all at once, in lockstep\n`);
  const profiles = Object.fromEntries(['full', ...POLICIES].map((policy) => [`demo-${policy}`, { policy }]));
  const cluster = await startCluster({
    config: {
      engine: {
        block_size: BLOCK_SIZE,
        pool_blocks: POOL_BLOCKS,
        max_num_seqs: PROGRAMS,
        lockstep: true,
        log_level: 'warn',
      },
      policy_service: { ...EVERY_STEP, default_profile: 'demo-full', log_level: 'warn' },
      gateway: { log_level: 'warn' },
      profiles,
    },
  });
  const round = async (policy: string, budgetTokens?: number) => {
    const progress = createProgress(policy.padEnd(8), PROGRAMS);
    const cache = { profile: `demo-${policy}`, ...(budgetTokens === undefined ? {} : { budget_tokens: budgetTokens }) };
    const options = {
      programs,
      cache,
      concurrency: PROGRAMS,
      maxTokens: answerTokenLimit(LINES, form),
      blockSize: BLOCK_SIZE,
    };
    try {
      return await runRound(cluster, { ...options, onAnswer: () => progress.done() });
    } finally {
      progress.close();
    }
  };
  try {
    const full = await round('full');
    const budget = budgetBlocks(full.answers, SHARE, BLOCK_SIZE);
    const rounds: [string, Round][] = [['full', full]];
    for (const policy of POLICIES) rounds.push([policy, await round(policy, budget * BLOCK_SIZE)]);
    process.stdout.write(`\n${table(rounds, full)}\n`);
    process.stdout.write(
      `Kept by the last three: ${budget} blocks of ${BLOCK_SIZE} thinking tokens a request, and its prompt.\n`,
    );
  } finally {
    await cluster.close();
  }
}

function table(rounds: readonly [string, Round][], full: Round): string {
  const rows = new Table({
    head: [
      'policy',
      'exact answers',
      'mean KV blocks',
      'peak KV blocks',
      'share of full peak',
      'tokens/s',
      'length ratio',
    ],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  });
  for (const [policy, { answers, memory, seconds }] of rounds) {
    const tokens = generatedTokens(answers);
    rows.push([
      policy,
      `${countExact(answers)}/${answers.length}`,
      memory.meanPoolBlocks.toFixed(0),
      memory.peakPoolBlocks,
      `${((100 * memory.peakPoolBlocks) / full.memory.peakPoolBlocks).toFixed(0)} %`,
      (tokens / seconds).toFixed(0),
      (tokens / generatedTokens(full.answers)).toFixed(2),
    ]);
  }
  return rows.toString();
}
