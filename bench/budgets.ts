/** Measures how small a budget keeps answers right; see `--help`. */
import { startCluster } from '../scripts/cluster.ts';
import { namesOf, wholeNumber } from '../scripts/command-line.ts';
import { RUN_MODEL_NAMES, RUN_MODELS, type RunModelName } from '../scripts/run-models.ts';
import { StopSignal } from '../scripts/stop-signal.ts';
import { askAll } from './ask.ts';
import { type BudgetRow, budgetTable, earlierRows, reportOf } from './budgets/results.ts';
import { TASKS, type Task } from './budgets/tasks.ts';
import { READY_MS } from './english/backend.ts';
import { type BenchRun, runBench } from './program.ts';
import { generatedTokens } from './rounds.ts';

const PROFILE = 'crystal';
const CONCURRENCY = 4;

await runBench({
  name: 'budgets',
  about: `Sends questions of several lengths through the whole system as make run starts it: with a full cache, then with the
profile ${PROFILE} and budgets. The questions are others than those that the live page offers. Ctrl-C leaves what is done.`,
  options: {
    model: { type: 'string', default: 'crystal-mini', value: 'NAME', help: 'crystal-mini (default) or english' },
    count: { type: 'string', value: 'N', help: 'questions of each length (default: 40; english: 8)' },
    length: { type: 'string', value: 'N', help: 'only programs of N lines, or stories of N people' },
  },
  notes: 'A run with the seed of the last one adds to its rows.',
  seed: { of: 'questions', default: 'fresh' },
  records: true,
  async run({ model: given, count: text, length }, run) {
    const model = namesOf('model', [given], RUN_MODEL_NAMES)[0]!;
    const count = wholeNumber('count', text ?? (model === 'english' ? '8' : '40'), 1, 10_000);
    const lengths = [...new Set(TASKS[model].map((task) => `${task.length}`))];
    const wanted = namesOf('length', length === undefined ? [] : [length], lengths);
    const tasks = TASKS[model].filter((task) => wanted.includes(`${task.length}`));
    await measure(model, tasks, count, run);
  },
});
process.exit();

async function measure(model: RunModelName, tasks: readonly Task[], count: number, run: BenchRun): Promise<void> {
  const stop = new StopSignal();
  const { folder, settings } = RUN_MODELS[model];
  const weights = await folder(stop.signal);
  const engine = weights === undefined ? {} : { CRYSTALKV_ENGINE_MODEL: weights };
  const cluster = await startCluster({ env: { ...settings, ...engine }, readyMs: READY_MS });
  const rows: BudgetRow[] = [];
  try {
    for (const task of tasks) {
      const programs = task.make(run.seed, count);
      for (const budget of [undefined, ...task.budgets]) {
        const cache = budget === undefined ? { mode: 'off' as const } : { profile: PROFILE, budget_tokens: budget };
        const asked = askAll(cluster.gatewayUrl, programs, { model, cache, concurrency: CONCURRENCY });
        // It ends with the cluster when it is stopped.
        asked.catch(() => {});
        const answers = await Promise.race([asked, stop.requested]);
        if (answers === undefined) return;
        const right = answers.filter(task.isRight).length;
        const tokens = generatedTokens(answers) / count;
        const { title, length, form = '' } = task;
        rows.push({ title, length, form, budget: budget ?? null, count, right, tokens: Math.round(tokens) });
        run.say(`${title}, ${budget ?? 'full cache'}: ${right} of ${count}`);
        write(model, rows, run);
      }
    }
  } finally {
    await cluster.close();
  }
  process.stdout.write(`\n${budgetTable(rows)}`);
}

function write(model: RunModelName, rows: readonly BudgetRow[], run: BenchRun): void {
  const isNew = (old: BudgetRow) => !rows.some((row) => row.title === old.title && row.budget === old.budget);
  const all = [...earlierRows(run.folder, model, run.seed).filter(isNew), ...rows];
  const figures = all.map(({ length, form, budget, right }) => [
    [length, ...(form === '' ? [] : [form]), budget ?? 'full', 'right'].join('_'),
    right,
  ]);
  const conditions = {
    seed: run.seed,
    profile: PROFILE,
    what: `npm run bench:budgets -- --model ${model}`,
    decoding: `greedy, not in lockstep, ${CONCURRENCY} requests at a time, defaults of make run`,
  };
  run.report({ conditions, figures: Object.fromEntries(figures), rows: all }, reportOf(model));
}
