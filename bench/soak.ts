/** Mixed traffic with aborts and faults for minutes; see `--help`. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRandom, type Random } from '../model/random.ts';
import { UsageError } from '../scripts/command-line.ts';
import { readMetrics } from '../scripts/metrics/text.ts';
import { StopSignal } from '../scripts/stop-signal.ts';
import { type BenchRun, runBench } from './program.ts';
import { createDisturber } from './soak/disturb.ts';
import { type IdleSnapshot, takeIdleSnapshot } from './soak/idle-snapshot.ts';
import { leftLeases, redisDisagreements } from './soak/redis-counts.ts';
import { problemsOf, type Result, report } from './soak/results.ts';
import { openTestbed, type Testbed } from './soak/testbed.ts';
import { drive, nothingSeen } from './soak/traffic.ts';

/** A shorter run is a try. */
const LEAST_MINUTES = 3;
/** Traffic that nobody disturbs, after which Redis must have counted as the gateway did. */
const CALM_SHARE = 0.1;
/** Traffic before the first look at the heap: code is compiled and pools are as large as they get. */
const WARM_UP_SHARE = 0.2;
/** Between two disturbances. */
const PAUSE = { share: 1 / 60, minMs: 1_000, maxMs: 10_000 };

await runBench({
  name: 'soak',
  about: `Sends mixed traffic with aborts and faults through a gateway process for some minutes: chats, streams and uploads, with
several API keys whose limits are counted in a Redis of its own, which freezes and crashes now and then; meanwhile the gateway
reloads its configuration. Fails unless afterwards the heap is within 10 % of what it was and the process within 25 %, no socket
and no byte of a body is left, no reservation a minute later, and the gateway's counters agree with the load generator's. Needs
redis-server.`,
  options: { minutes: { type: 'string', default: '10', value: 'N', help: 'how long (default: 10; 0.5 to 600)' } },
  seed: { of: 'order of the traffic', default: 1 },
  records: true,
  trial: ({ minutes }) =>
    Number(minutes) < LEAST_MINUTES ? { because: 'the heap settles in some minutes' } : undefined,
  run: ({ minutes }, run) => soakAndReport(Number(minutes), run),
});

async function soakAndReport(minutes: number, run: BenchRun): Promise<number> {
  if (!(minutes >= 0.5 && minutes <= 600)) {
    throw new UsageError(`--minutes must be a number from 0.5 to 600, got "${minutes}"`);
  }
  const random = createRandom(run.seed);
  const { signal } = new StopSignal();
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-soak-'));
  let keep = false;
  try {
    const testbed = await openTestbed(folder, signal);
    try {
      const result = await soak(testbed, minutes, { random, signal });
      const problems = problemsOf(result);
      keep = problems.length > 0;
      report(result, problems, run);
      return keep ? 1 : 0;
    } finally {
      await testbed.close();
    }
  } catch (error) {
    keep = !signal.aborted;
    throw error;
  } finally {
    if (keep) process.stdout.write(`logs: ${folder}\n`);
    else rmSync(folder, { recursive: true, force: true });
  }
}

async function soak(
  testbed: Testbed,
  minutes: number,
  { random, signal }: { random: Random; signal: AbortSignal },
): Promise<Result> {
  const seen = nothingSeen();
  const disturber = createDisturber(testbed);
  const ms = minutes * 60_000;
  const pauseMs = Math.min(Math.max(ms * PAUSE.share, PAUSE.minMs), PAUSE.maxMs);
  const traffic = async (share: number, disturbed: boolean): Promise<IdleSnapshot> => {
    const end = performance.now() + ms * share;
    // What fails ends the other too.
    const failed = new AbortController();
    const either = AbortSignal.any([signal, failed.signal]);
    const parts = [drive(testbed, disturber, seen, end, { random, signal: either })];
    if (disturbed) parts.push(disturber.run(end, pauseMs, either));
    await Promise.allSettled(parts.map((part) => part.catch((error: unknown) => failed.abort(error))));
    failed.signal.throwIfAborted();
    return await takeIdleSnapshot(testbed, signal);
  };

  const day = () => new Date().getUTCDate();
  const today = day();
  await traffic(CALM_SHARE, false);
  const inRedis = [
    ...(await leftLeases(testbed.redis, testbed.keys, signal)),
    // A day's tokens are forgotten after it.
    ...(day() === today
      ? await redisDisagreements(testbed.redis, testbed.keys, await readMetrics(`${testbed.url}/metrics`))
      : []),
  ];
  const before = await traffic(WARM_UP_SHARE, true);
  const after = await traffic(1 - CALM_SHARE - WARM_UP_SHARE, true);
  inRedis.push(...(await leftLeases(testbed.redis, testbed.keys, signal)));
  return {
    minutes,
    seen,
    disturbed: disturber.counts,
    inRedis,
    before,
    after,
    metrics: await readMetrics(`${testbed.url}/metrics`),
  };
}
