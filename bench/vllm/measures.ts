import { createRandom } from '../../model/random.ts';
import { watchMemory } from '../memory.ts';
import { mean, median, round } from '../statistics.ts';
import { makePrograms } from '../workload.ts';
import {
  askFor,
  exactFigures,
  medianRatio,
  type PairRow,
  run,
  runArm,
  runCounted,
  runPair,
  runPlugin,
  sameShare,
  withOptions,
} from './pair.ts';
import { BLOCK_SIZE, type VllmRequest } from './process.ts';
import type { Sizes } from './sizes.ts';
import type { Arms, System } from './system.ts';

/** Figures, and the measurements behind them. */
export interface Measured {
  figures: Record<string, number>;
  rows: unknown[];
}

export interface Context {
  sizes: Sizes;
  seed: number;
  say(text: string): void;
}

/** A seed of its own for each figure and round. */
const seedOf = ({ seed }: Context, number: number): number => (seed + number) % 2 ** 31;

const SHADOW = { crystalkv_mode: 'shadow' };

/** What the plugin costs while it changes nothing. Every round runs stock vLLM twice: its spread is the noise. */
export async function measureAmple(system: System, arms: Arms, context: Context): Promise<Measured> {
  const { sizes, say } = context;
  const { requests, tokens, rounds } = sizes.ample;
  const rows: Record<string, unknown>[] = [];
  const ratios = new Map<number | undefined, number[]>();
  const noise: number[] = [];
  const same: number[] = [];
  for (let number = 0; number < rounds; number += 1) {
    const work = askFor(makePrograms(seedOf(context, number), requests, sizes.lines, sizes.form), tokens, true);
    const { row: first, tokens: expected } = await run(arms.stock, work);
    const runs = [];
    for (const every of [undefined, ...sizes.ample.every]) {
      await system.measureEvery(every);
      const { row: plugin, tokens } = await runCounted(arms.plugin, withOptions(work, SHADOW));
      runs.push({ every, plugin });
      same.push(sameShare(expected, tokens));
    }
    const last = await runArm(arms.stock, work);
    const stock = (first.tokens_per_second + last.tokens_per_second) / 2;
    noise.push(last.tokens_per_second / first.tokens_per_second);
    for (const { every, plugin } of runs) {
      const ratio = round(plugin.tokens_per_second / stock);
      ratios.set(every, [...(ratios.get(every) ?? []), ratio]);
      rows.push({
        figure: 'ample',
        round: number,
        measure_every: every ?? 'as shipped',
        ratio,
        stock_first: first,
        plugin,
        stock_last: last,
      });
      say(
        `ample, measured ${every === undefined ? 'as shipped' : `at every ${every}`}: ${plugin.tokens_per_second} / ${round(stock, 1)} tokens/s = ${ratio}`,
      );
    }
  }
  await system.measureEvery(undefined);
  const figures: Record<string, number> = {};
  for (const [every, values] of ratios) {
    figures[every === undefined ? 'ample_ratio' : `ample_ratio_every_${every}`] = median(values);
  }
  figures['ample_noise_ratio'] = round(median(noise));
  figures['ample_same_tokens_share'] = round(mean(same));
  return { figures, rows };
}

/** Throughput when memory is short and every request generates a fixed number of tokens. */
export async function measureTight(arms: Arms, context: Context): Promise<Measured> {
  const { sizes, say } = context;
  const { requests, tokens, rounds } = sizes.tight;
  const rows: PairRow[] = [];
  for (let number = 0; number < rounds; number += 1) {
    const work = askFor(makePrograms(seedOf(context, 100 + number), requests, sizes.lines, sizes.form), tokens, true);
    const row = await runPair(arms, work, number % 2 === 0);
    rows.push(row);
    say(`tight: ${describe(row)}`);
  }
  return tightFigures('tight', 'crystal_mini', rows, requests);
}

/** The same with a model of 135M parameters. Its prompts are made up, so that nothing can be right or wrong. */
export async function measureBig(arms: Arms, context: Context): Promise<Measured> {
  const { sizes, say } = context;
  const { requests, tokens, promptTokens } = sizes.big;
  const random = createRandom(seedOf(context, 300));
  const made = Array.from({ length: requests }, (): VllmRequest => {
    return { prompt: Array.from({ length: promptTokens }, () => random.integer(1000, 40_000)), maxTokens: tokens };
  });
  const row = await runPair(arms, { requests: made, ignoreEos: true }, true);
  say(`tight, 135M: ${describe(row)}`);
  return tightFigures('tight', '135m', [row], undefined);
}

function tightFigures(figure: string, model: string, rows: PairRow[], programs: number | undefined): Measured {
  const name = `${figure}_${model}`;
  return {
    figures: {
      [`${figure}_ratio_${model}`]: medianRatio(rows, (row) => row.tokens_per_second),
      [`${name}_first_token_ratio`]: medianRatio(rows, (row) => row.mean_first_token_seconds),
      [`${name}_preemptions_stock`]: median(rows.map((row) => row.stock.preemptions)),
      [`${name}_preemptions_plugin`]: median(rows.map((row) => row.plugin.preemptions)),
      ...(programs === undefined
        ? { [`${name}_same_tokens_share`]: median(rows.map((row) => row.same_tokens_share)) }
        : exactFigures(name, rows, programs)),
    },
    rows: rows.map((row) => ({ figure: name, ...row })),
  };
}

/** Requests that fit the pool `1 / memoryShare` times over when all think to their end. */
export function goodputConcurrency({ tightPoolBlocks, goodput, lines, form }: Sizes, seed: number): number {
  const lengths = makePrograms(seed, 64, lines, form).map((program) => Math.ceil(program.ids.length / BLOCK_SIZE));
  return Math.round(tightPoolBlocks / goodput.memoryShare / mean(lengths));
}

/** Exactly solved programs per second: what cannot be bought with wrong answers. */
export async function measureGoodput(arms: Arms, context: Context): Promise<Measured> {
  const { sizes, seed, say } = context;
  const { programs, maxTokens, rounds } = sizes.goodput;
  const concurrency = goodputConcurrency(sizes, seed);
  const rows: PairRow[] = [];
  for (let number = 0; number < rounds; number += 1) {
    const work = askFor(
      makePrograms(seedOf(context, 200 + number), programs, sizes.lines, sizes.form),
      maxTokens,
      false,
    );
    const row = await runPair(arms, { ...work, concurrency }, number % 2 === 0);
    rows.push(row);
    const { stock, plugin } = row;
    say(`goodput: ${plugin.exact_per_second} / ${stock.exact_per_second} exact/s; ${describe(row)}`);
  }
  return {
    figures: {
      goodput_ratio: medianRatio(rows, (row) => row.exact_per_second ?? 0),
      goodput_tokens_ratio: medianRatio(rows, (row) => row.tokens_per_second),
      ...exactFigures('goodput', rows, programs),
      goodput_preemptions_stock: median(rows.map((row) => row.stock.preemptions)),
      goodput_preemptions_plugin: median(rows.map((row) => row.plugin.preemptions)),
    },
    rows: rows.map((row) => ({ figure: 'goodput', concurrency, ...row })),
  };
}

/** How much of a whole cache's peak is never needed at a fixed budget, as the chain grows. */
export async function measureSaving(system: System, arms: Arms, context: Context): Promise<Measured> {
  const { sizes, say } = context;
  const { programs, budgetTokens, lengths } = sizes.saving;
  const figures: Record<string, number> = {};
  const rows: unknown[] = [];
  for (const { tokens, lines } of lengths) {
    const work = askFor(makePrograms(seedOf(context, 1000 + tokens), programs, lines, sizes.form), tokens, true);
    const measure = async (options: Record<string, string | number>) => {
      const watch = await watchMemory(system.policyAddress, BLOCK_SIZE);
      const run = await runPlugin(arms.plugin, withOptions(work, options));
      return { run, output: mean((await watch.stop()).peakOutputBlocks) };
    };
    const full = await measure({ crystalkv_profile: 'full' });
    const kept = await measure({ crystalkv_budget_tokens: budgetTokens });
    const prompt = mean(work.requests.map((request) => Math.ceil(request.prompt.length / BLOCK_SIZE)));
    const row = {
      figure: 'saving_by_length',
      thinking_tokens: tokens,
      lines,
      budget_tokens: budgetTokens,
      prompt_blocks: round(prompt, 2),
      full_output_blocks: round(full.output, 2),
      kept_output_blocks: round(kept.output, 2),
      saved: round((full.output - kept.output) / (full.output + prompt)),
      saved_of_thinking: round((full.output - kept.output) / full.output),
      full: full.run,
      kept: kept.run,
    };
    rows.push(row);
    figures[`saving_${tokens}`] = row.saved;
    figures[`saving_of_thinking_${tokens}`] = row.saved_of_thinking;
    figures[`saving_${tokens}_exact_full`] = round((full.run.exact ?? 0) / programs);
    figures[`saving_${tokens}_exact_kept`] = round((kept.run.exact ?? 0) / programs);
    say(`${tokens} tokens: ${row.saved} saved, exact ${kept.run.exact} with a budget, ${full.run.exact} without`);
  }
  return { figures, rows };
}

function describe({ stock, plugin }: PairRow): string {
  const part = (name: string, value: number | undefined, against: number | undefined) =>
    value === undefined ? '' : `, ${name} ${value} / ${against}`;
  return [
    `${plugin.tokens_per_second} / ${stock.tokens_per_second} tokens/s`,
    part('preemptions', plugin.preemptions, stock.preemptions),
    part('first token', plugin.mean_first_token_seconds, stock.mean_first_token_seconds),
    part('exact', plugin.exact, stock.exact),
    `, ${plugin.counts.evictedBlocks} blocks evicted, ${plugin.counts.probes} probes`,
  ].join('');
}
