/** Measures how many tokens the engine generates; see `--help`. */
import { execFileSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import type { Program } from '../model/program.ts';
import { startCluster } from '../scripts/cluster.ts';
import { readMetrics, total } from '../scripts/metrics/text.ts';
import { type BenchRun, runBench } from './program.ts';
import { median, round } from './statistics.ts';
import { makePrograms, PROGRAM_SEED } from './workload.ts';

const CONCURRENCIES = [1, 16, 64] as const;
const RUNS = 5;
const LINES = 24;
/** Tokens that each request generates; the end-of-sequence token does not end it. */
const TOKENS = 384;
const POOL_BLOCKS = 4096;

await runBench({
  name: 'engine',
  about: `Sends ${CONCURRENCIES.join(', ')} requests at once to the engine, pinned to one core where taskset exists, and takes the median of ${RUNS} runs.`,
  options: {},
  seed: PROGRAM_SEED,
  records: true,
  run: (_, run) => measure(run),
});

async function measure({ seed, report }: BenchRun): Promise<void> {
  const programs = makePrograms(seed, Math.max(...CONCURRENCIES), LINES);
  const pin = pinning();
  process.stdout.write(`${pin === undefined ? 'engine not pinned' : `engine: ${pin.join(' ')}`}\n`);
  const cluster = await startCluster({
    start: ['engine'],
    config: {
      engine: { pool_blocks: POOL_BLOCKS, max_num_seqs: 64, policy_address: '', log_level: 'warn' },
    },
    ...(pin === undefined ? {} : { prefix: { engine: pin } }),
  });
  const rows: { concurrency: number; run: number; tokens: number; seconds: number; tokens_per_second: number }[] = [];
  const figures: Record<string, number> = {};
  try {
    await generate(cluster.engineUrl, programs.slice(0, 16));
    for (const concurrency of CONCURRENCIES) {
      for (let run = 1; run <= RUNS; run += 1) {
        const before = total(await readMetrics(`${cluster.engineUrl}/metrics`), 'vllm:generation_tokens_total');
        const started = performance.now();
        const tokens = await generate(cluster.engineUrl, programs.slice(0, concurrency));
        const seconds = (performance.now() - started) / 1000;
        const counted =
          total(await readMetrics(`${cluster.engineUrl}/metrics`), 'vllm:generation_tokens_total') - before;
        if (counted !== tokens) throw new Error(`the engine counted ${counted} tokens, its answers hold ${tokens}`);
        rows.push({ concurrency, run, tokens, seconds: round(seconds), tokens_per_second: round(tokens / seconds, 1) });
      }
      const speeds = rows.filter((row) => row.concurrency === concurrency).map((row) => row.tokens_per_second);
      figures[`tokens_per_second_${concurrency}`] = median(speeds);
      process.stdout.write(`${concurrency} at once: ${median(speeds)} tokens/s (${speeds.join(', ')})\n`);
    }
  } finally {
    await cluster.close();
  }
  const conditions = {
    seed,
    lines: LINES,
    generated_tokens: TOKENS,
    pool_blocks: POOL_BLOCKS,
    block_size: 16,
    runs: RUNS,
    statistic: 'median',
    pinned: pin === undefined ? 'no' : pin.join(' '),
    policy_service: 'none',
    streamed: false,
  };
  report({ conditions, figures, rows });
}

/** Sends all programs at once; the tokens that were generated. */
async function generate(url: string, programs: readonly Program[]): Promise<number> {
  const counts = await Promise.all(
    programs.map(async ({ messages }) => {
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({
          model: 'crystal-mini',
          messages,
          temperature: 0,
          max_tokens: TOKENS,
          ignore_eos: true,
        }),
      });
      if (!response.ok) throw new Error(`the engine answered ${response.status}: ${await response.text()}`);
      const { usage } = (await response.json()) as { usage: { completion_tokens: number } };
      if (usage.completion_tokens !== TOKENS) throw new Error(`${usage.completion_tokens} tokens, not ${TOKENS}`);
      return usage.completion_tokens;
    }),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

/** The command that pins a process to the last core; undefined where there is none, or only one core. */
function pinning(): string[] | undefined {
  const cores = availableParallelism();
  const command = ['taskset', '-c', `${cores - 1}`];
  if (cores < 2) return undefined;
  try {
    execFileSync('taskset', ['-c', `${cores - 1}`, 'true'], { stdio: 'ignore' });
    return command;
  } catch {
    return undefined;
  }
}
