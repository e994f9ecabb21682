/** Compares vLLM with the plugin to stock vLLM, on the CPU; see `--help`. */
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { smolLm2Folder } from '../model/english/folder.ts';
import { policyServiceSchema } from '../policy-service/config.ts';
import { DEFAULT_PROFILE } from '../policy-service/request/profiles.ts';
import { namesOf } from '../scripts/command-line.ts';
import { ROOT } from '../scripts/processes.ts';
import { type BenchRun, runBench } from './program.ts';
import { measureChats } from './vllm/chats.ts';
import {
  type Context,
  goodputConcurrency,
  type Measured,
  measureAmple,
  measureBig,
  measureGoodput,
  measureSaving,
  measureTight,
} from './vllm/measures.ts';
import { BLOCK_SIZE, MAX_SEQUENCES, type VllmOptions, vllmPython } from './vllm/process.ts';
import { FULL, QUICK, type Sizes, verboseSizes } from './vllm/sizes.ts';
import { type Arms, CORES, startSystem } from './vllm/system.ts';
import { PROGRAM_SEED, reportName, VERBOSE } from './workload.ts';

const MODEL = join(ROOT, 'model/crystal-mini');
/** Trials have a seed of their own: nothing is chosen by the programs that are measured. */
const TRIAL_SEED = 1;
const GROUPS = ['ample', 'tight', 'chats', '135m'] as const;
type Group = (typeof GROUPS)[number];

await runBench({
  name: 'vllm',
  about: `Runs the same requests on stock vLLM and on vLLM with the plugin and the policy service, in real processes on the CPU, and
compares them. Takes about 15 minutes; the first time, vLLM is installed (6 GB).`,
  options: {
    quick: { type: 'boolean', default: false, help: 'a tenth of it, to try' },
    only: {
      type: 'string',
      multiple: true,
      default: [] as string[],
      value: 'NAME',
      help: `${GROUPS.join(', ')}: these engines only`,
    },
    verbose: VERBOSE,
  },
  seed: PROGRAM_SEED,
  records: true,
  trial({ quick, only }) {
    if (!quick && only.length === 0) return undefined;
    return { because: `${quick ? '--quick measures' : '--only measures'} less`, seed: TRIAL_SEED };
  },
  run: compare,
});

async function compare(
  values: { quick: boolean; only: string[]; verbose: boolean },
  { seed, say, report: write }: BenchRun,
): Promise<void> {
  const groups = namesOf('only', values.only, GROUPS);
  const plainSizes = values.quick ? QUICK : FULL;
  const sizes = values.verbose ? verboseSizes(plainSizes) : plainSizes;
  const python = vllmPython();
  const context: Context = { sizes, seed, say };

  // everything that is not this program's
  const loadBefore = Number(loadavg()[0]?.toFixed(2));
  const measured: Measured[] = [];
  const missing: Record<string, string> = {};
  for (const name of GROUPS) missing[`not_measured_${name}`] = 'the run did not get there';
  let version = 'none';
  const report = () => {
    const figures = allFigures(measured);
    for (const [name, value] of Object.entries(figures)) {
      if (Number.isFinite(value)) continue;
      missing[`not_measured_${name}`] = `${value}: stock vLLM's value is 0`;
      delete figures[name];
    }
    const conditions = {
      ...conditionsOf(sizes, seed),
      vllm: version,
      load_average_before: loadBefore,
      ...missing,
    };
    const rows = measured.flatMap((it) => it.rows);
    write({ conditions, figures, rows }, reportName('vllm', sizes.form));
  };
  const system = await startSystem();
  const measure = async (name: Group, size: ArmSize, model: () => string, run: (arms: Arms) => Promise<void>) => {
    if (!groups.includes(name)) return;
    try {
      say(`${name}: starting two engines`);
      const arms = await system.startArms({ name, python, model: model(), tokenizer: name !== '135m', ...size });
      version = arms.stock.version;
      say(`${name}: engines are up`);
      try {
        await run(arms);
        delete missing[`not_measured_${name}`];
      } finally {
        await arms.close();
      }
    } catch (error) {
      // what was measured by then, and the other engines, do not depend on it
      missing[`not_measured_${name}`] = error instanceof Error ? error.message : String(error);
      say(`${name}: not measured: ${missing[`not_measured_${name}`]}`);
    }
    if (measured.length > 0) report();
  };
  try {
    const { ample, tightPoolBlocks, big } = sizes;
    const crystalMini = () => MODEL;
    await measure('tight', { poolBlocks: tightPoolBlocks, maxModelLen: 2048 }, crystalMini, async (arms) => {
      measured.push(await measureGoodput(arms, context));
      measured.push(await measureTight(arms, context));
    });
    await measure('ample', { poolBlocks: ample.poolBlocks, maxModelLen: 2048 }, crystalMini, async (arms) => {
      measured.push(await measureAmple(system, arms, context));
      measured.push(await measureSaving(system, arms, context));
    });
    await measure('chats', { poolBlocks: sizes.chats.poolBlocks, maxModelLen: 1024 }, crystalMini, async (arms) => {
      measured.push(await measureChats(arms, context));
    });
    const bigLength = big.promptTokens + big.tokens + BLOCK_SIZE;
    await measure('135m', { poolBlocks: big.poolBlocks, maxModelLen: bigLength }, smolLm2Folder, async (arms) => {
      measured.push(await measureBig(arms, context));
    });
  } finally {
    await system.close();
  }
  for (const [name, value] of Object.entries(allFigures(measured))) {
    process.stdout.write(`${name.padEnd(44)} ${value}\n`);
  }
}

const allFigures = (measured: readonly Measured[]): Record<string, number> =>
  Object.assign({}, ...measured.map((it) => it.figures));

type ArmSize = Pick<VllmOptions, 'poolBlocks' | 'maxModelLen'>;

function conditionsOf(sizes: Sizes, seed: number) {
  const { ample, tight, goodput, saving, chats, big } = sizes;
  const service = policyServiceSchema.parse({});
  const fixed = 'greedy, the end of a sequence is ignored';
  return {
    seed,
    form: sizes.form,
    profile: `${DEFAULT_PROFILE}, as shipped, for all figures`,
    measured: `every ${service.measure_every} decode steps of a request, ${service.measure_every_idle} while memory is free`,
    vllm_settings: `float32, enforce_eager, block size ${BLOCK_SIZE}, max_num_seqs ${MAX_SEQUENCES}, prefix caching (emptied before each run), one OpenMP thread`,
    processes:
      'vLLM offline with its engine core and worker in processes of their own; policy service over gRPC; one arm computes at a time',
    cores: CORES === undefined ? 'one for everything' : `all of vLLM: ${CORES.vllm}; policy service: ${CORES.policy}`,
    baseline: 'stock vLLM with no plugin loaded, same run, same pool, same prompts, same arrivals',
    ample: `${ample.requests} programs of ${sizes.lines} lines at once, ${ample.tokens} tokens each, ${fixed}; ${ample.poolBlocks} blocks; plugin in shadow mode; median of ${ample.rounds} rounds, stock measured before and after the plugin`,
    tight_crystal_mini: `${tight.requests} programs of ${sizes.lines} lines at once, ${tight.tokens} tokens each, ${fixed}; ${sizes.tightPoolBlocks} blocks; ${tight.rounds} round(s)`,
    tight_135m: `SmolLM2-135M-Instruct (from GGUF Q4_1, in float32), ${big.requests} made-up prompts of ${big.promptTokens} tokens at once, ${big.tokens} tokens each, ${fixed}; ${big.poolBlocks} blocks; 1 round`,
    goodput: `${goodput.programs} programs of ${sizes.lines} lines, ${goodputConcurrency(sizes, seed)} at a time, which would need ${sizes.tightPoolBlocks} blocks ${Math.round(1 / goodput.memoryShare)} times over, at most ${goodput.maxTokens} tokens; median of ${goodput.rounds} rounds on different programs, stock first and last in turn`,
    saving: `mean peak of ${saving.programs} programs at once; budget of ${saving.budgetTokens} output tokens; saving_N counts the prompt in the whole cache's peak, saving_of_thinking_N does not; ${fixed}`,
    chats: `${chats.chats} chats of ${chats.turns} turns, ${chats.concurrency} at a time in the same order, ${chats.userTokens} new tokens a turn, ${chats.thinkingTokens} of thinking and ${chats.answerTokens} of answer; ${chats.poolBlocks} blocks; profile full; hit rate and first token from the second turn on; median of ${chats.rounds} rounds`,
  };
}
