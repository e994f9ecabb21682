import type { Program } from '../../model/program.ts';
import { decode, TOKEN } from '../../model/vocab.ts';
import { add, mean, median, round } from '../statistics.ts';
import { makePrograms } from '../workload.ts';
import type { Vllm, VllmBatch, VllmRequest, VllmRun } from './process.ts';
import type { Arms, PluginCounts, PluginVllm } from './system.ts';

/** One run of one arm, for the report. */
export interface ArmRow {
  seconds: number;
  tokens: number;
  tokens_per_second: number;
  preemptions: number;
  mean_first_token_seconds: number;
  /** Exactly solved programs; undefined where requests are no programs. */
  exact?: number;
  exact_per_second?: number;
  /** Programs whose thinking never ended. */
  unended?: number;
}

export interface PairRow {
  stock: ArmRow;
  plugin: ArmRow & { counts: PluginCounts };
  /** Share of each request's tokens before the first that differs from stock's, mean over requests. */
  same_tokens_share: number;
}

export interface Done<Row extends ArmRow = ArmRow> {
  row: Row;
  tokens: readonly (readonly number[])[];
}

export interface Work extends VllmBatch {
  /** Same order as the requests. */
  programs?: readonly Program[];
}

/** Requests that think about programs, for so many tokens at most. */
export function askFor(programs: readonly Program[], maxTokens: number, ignoreEos: boolean): Work {
  const requests = programs.map((program) => ({ prompt: program.ids.slice(0, program.promptLength), maxTokens }));
  return { requests, programs, ignoreEos };
}

export const withOptions = (work: Work, options: NonNullable<VllmRequest['options']>): Work => ({
  ...work,
  requests: work.requests.map((request) => ({ ...request, options })),
});

/** After a pause a process has cold caches; nothing of this counts. */
async function warmUp(vllm: Vllm): Promise<void> {
  await vllm.run(askFor(makePrograms(0, 4, 10), 64, true));
}

/** The same work on both arms, stock first or last. */
export async function runPair(arms: Arms, work: Work, stockFirst: boolean): Promise<PairRow> {
  let stock = stockFirst ? await run(arms.stock, work) : undefined;
  const plugin = await runCounted(arms.plugin, work);
  stock ??= await run(arms.stock, work);
  return { stock: stock.row, plugin: plugin.row, same_tokens_share: round(sameShare(stock.tokens, plugin.tokens)) };
}

export const runArm = async (vllm: Vllm, work: Work): Promise<ArmRow> => (await run(vllm, work)).row;

export const runPlugin = async (vllm: PluginVllm, work: Work): Promise<PairRow['plugin']> =>
  (await runCounted(vllm, work)).row;

/** One arm, and the tokens it generated. */
export async function run(vllm: Vllm, work: Work): Promise<Done> {
  await warmUp(vllm);
  return await runWarm(vllm, work);
}

async function runWarm(vllm: Vllm, work: Work): Promise<Done> {
  const result = await vllm.run(work);
  return { row: describe(result, work.programs), tokens: result.answers.map((answer) => answer.tokens) };
}

/** The same with what the plugin counted. */
export async function runCounted(vllm: PluginVllm, work: Work): Promise<Done<PairRow['plugin']>> {
  await warmUp(vllm);
  const before = await vllm.counts();
  const { row, tokens } = await runWarm(vllm, work);
  const counts = await vllm.counts();
  for (const key of Object.keys(counts) as (keyof PluginCounts)[]) counts[key] -= before[key];
  return { row: { ...row, counts }, tokens };
}

/** Share of each request's tokens before the first difference, mean over requests. */
export function sameShare(ones: readonly (readonly number[])[], others: readonly (readonly number[])[]): number {
  return mean(
    ones.map((tokens, i) => {
      const first = tokens.findIndex((token, at) => token !== others[i]?.[at]);
      return first < 0 ? 1 : first / tokens.length;
    }),
  );
}

function describe(run: VllmRun, programs: readonly Program[] | undefined): ArmRow {
  const tokens = add(run.answers.map((answer) => answer.tokens.length));
  const row: ArmRow = {
    seconds: round(run.seconds),
    tokens,
    tokens_per_second: round(tokens / run.seconds, 1),
    preemptions: run.num_preemptions,
    mean_first_token_seconds: round(mean(run.answers.map((answer) => answer.first_token_seconds))),
  };
  if (programs === undefined) return row;
  const contents = run.answers.map((answer) => contentOf(answer.tokens));
  const exact = contents.filter((content, i) => content?.includes(programs[i]!.answer)).length;
  const unended = contents.filter((content) => content === undefined).length;
  return { ...row, exact, exact_per_second: round(exact / run.seconds, 4), unended };
}

/** What stands between the end of thinking and the first end of the sequence; undefined: thinking never ended. */
export function contentOf(tokens: readonly number[]): string | undefined {
  const end = tokens.indexOf(TOKEN.thinkEnd);
  if (end < 0) return undefined;
  const eos = tokens.indexOf(TOKEN.eos, end);
  return decode(tokens.slice(end + 1, eos < 0 ? undefined : eos));
}

/** Median over runs of plugin / stock. */
export const medianRatio = (rows: readonly PairRow[], value: (row: ArmRow) => number): number =>
  round(median(rows.map(({ stock, plugin }) => value(plugin) / value(stock))));

/** `<name>_exact_stock` and `<name>_exact_plugin`: shares of programs. */
export function exactFigures(name: string, rows: readonly PairRow[], programs: number): Record<string, number> {
  const share = (arm: 'stock' | 'plugin') =>
    round(add(rows.map((row) => row[arm].exact ?? 0)) / (rows.length * programs));
  return { [`${name}_exact_stock`]: share('stock'), [`${name}_exact_plugin`]: share('plugin') };
}
