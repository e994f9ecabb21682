import { randomInt } from 'node:crypto';
import { join } from 'node:path';
import { type OptionSpec, runCommandLine, UsageError, type Values, wholeNumber } from '../scripts/command-line.ts';
import { ROOT } from '../scripts/processes.ts';
import { RESULTS, type Report, writeReport } from './report.ts';

type Options = Readonly<Record<string, OptionSpec>>;

/** Where results go that are not to be published. Git ignores it. */
const UNPUBLISHED = join(ROOT, 'tmp/bench');
/** Seeds of the generator: 0 to 2^31 - 1. */
const SEEDS = 2 ** 31;

/** A bench. Each has `--help`; `--seed` where something is chosen by chance; and `--record` where it writes results. */
export interface Bench<O extends Options> {
  /** Of its results, and in its errors. */
  name: string;
  about: string;
  options: O;
  notes?: string;
  /** What is fixed by the seed, and the seed without the option; `fresh`: another each time, which is printed. */
  seed?: { of: string; default: number | 'fresh' };
  /** False: it writes no results. */
  records: boolean;
  /** Why a run with these options is a try, which is never recorded; undefined: it is none. */
  trial?(values: Values<O>): { because: string; seed?: number } | undefined;
  /** Resolves with the exit code; nothing: 0. */
  run(values: Values<O>, run: BenchRun): Promise<number | undefined> | Promise<void>;
}

/** What the frame gives to one run of a bench. */
export interface BenchRun {
  seed: number;
  trial: boolean;
  /** The results are to be published. */
  recorded: boolean;
  /** The folder of the results. */
  folder: string;
  /** Prints a line, with the time since the start. */
  say(text: string): void;
  /** Writes `<name>.json` and says where; without a name, that of the bench. Throws as `writeReport` does. */
  report(report: Report, name?: string): void;
}

/**
 * Runs a bench. Results that are committed are replaced with `--record` only; without it they are written to a folder that
 * Git ignores.
 */
export function runBench<const O extends Options>(bench: Bench<O>): Promise<void> {
  const usual = bench.seed?.default ?? 1;
  const common = {
    ...(bench.seed !== undefined && { seed: seedOption(bench.seed) }),
    ...(bench.records && { record: RECORD }),
  };
  return runCommandLine({
    name: bench.name,
    about: bench.about,
    options: { ...bench.options, ...common },
    ...(bench.notes === undefined ? {} : { notes: bench.notes }),
    async run(given) {
      const values = given as Values<O> & { seed?: string; record?: boolean };
      const trial = bench.trial?.(values);
      const recorded = values.record === true;
      if (recorded && trial !== undefined) throw new UsageError(`--record is for a whole run: ${trial.because}`);
      const seed = chooseSeed(values.seed, trial?.seed ?? usual);
      const started = performance.now();
      const say = (text: string) =>
        void process.stdout.write(`${((performance.now() - started) / 1000).toFixed(0).padStart(4)} s  ${text}\n`);
      if (usual === 'fresh') say(`seed ${seed}`);
      const folder = recorded ? RESULTS : UNPUBLISHED;
      const code = await bench.run(values, {
        ...{ seed, trial: trial !== undefined, recorded, folder, say },
        report: (report, name = bench.name) => say(`wrote ${writeReport(name, report, folder)}`),
      });
      return code ?? 0;
    },
  });
}

const RECORD = {
  type: 'boolean',
  default: false,
  help: 'write the results to bench/results, which is committed, instead of tmp/bench',
} as const satisfies OptionSpec;

function seedOption({ of, default: usual }: NonNullable<Bench<Options>['seed']>): OptionSpec {
  return {
    type: 'string',
    value: 'N',
    help: `${of} (default: ${usual === 'fresh' ? 'a fresh seed, which is printed' : usual})`,
  };
}

/** A seed from the command line, or the usual one. Throws UsageError that names the bounds. */
export function chooseSeed(text: string | undefined, usual: number | 'fresh' = 'fresh'): number {
  if (text !== undefined) return wholeNumber('seed', text, 0, SEEDS - 1);
  return usual === 'fresh' ? randomInt(SEEDS) : usual;
}
