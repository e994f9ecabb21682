/** Compares the gateway with others on one machine; see `--help`. */
import { mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { namesOf, wholeNumber } from '../scripts/command-line.ts';
import { ROOT } from '../scripts/processes.ts';
import { StopSignal } from '../scripts/stop-signal.ts';
import { capacityOf, MOST_ADDED_P99_MS, type Try } from './gateway/capacity.ts';
import { type CapacityRow, capacityFigures, figuresOf, type Row } from './gateway/figures.ts';
import { LARGE_SHAPES } from './gateway/large-bodies.ts';
import { type Load, type Measured, RAMP_MS, RAMP_MS_A_STREAM, SETTLE_MS } from './gateway/loads.ts';
import { busyCores, prefer, REAL_TIME, realTime, realTimeSlice, usageOf } from './gateway/proc.ts';
import { printedBy } from './gateway/server.ts';
import { ANSWER, requestBody } from './gateway/shapes.ts';
import {
  CORES,
  pinned,
  type RunningTarget,
  startTarget,
  startUpstream,
  TARGETS,
  type TargetName,
} from './gateway/targets.ts';
import { type BenchRun, runBench } from './program.ts';
import { median, round } from './statistics.ts';

const EVENTS_PER_SECOND = 50;
const STREAMS = 200;
/** How many streams at once are tried for the most events a second. */
const STREAM_COUNTS = [100, 1_000, 4_000];
const LARGE_BYTES = 64_000_000;
const LOAD = join(ROOT, 'bench/gateway/load.ts');
const FULL = { rounds: 3, seconds: { single: 2, open: 2, closed: 3, streams: 4, warmUp: 20, capacity: 2, pause: 20 } };
const QUICK = { rounds: 1, seconds: { single: 1, open: 1, closed: 2, streams: 2, warmUp: 2, capacity: 1, pause: 8 } };
type Sizes = typeof FULL;

await runBench({
  name: 'gateway',
  about: `Sends the same chat completions to a scripted server directly, through the gateway, and through other gateways. Takes
about 14 minutes, with --rounds 1 --warm-up 8 about 8; the others are installed the first time (bench/gateway/peers.sh).`,
  options: {
    quick: { type: 'boolean', default: false, help: 'one short round, to try' },
    only: {
      ...{ type: 'string', multiple: true, default: [] as string[], value: 'NAME' },
      help: `${TARGETS.slice(1).join(', ')}: only these, beside the direct way`,
    },
    rounds: { type: 'string', value: 'N', help: `how often everything is measured (default: ${FULL.rounds})` },
    'warm-up': {
      ...{
        type: 'string',
        value: 'S',
        help: `seconds of requests that do not count, for each (default: ${FULL.seconds.warmUp})`,
      },
    },
    nice: {
      ...{ type: 'string', default: '0', value: 'N' },
      help: 'priority of all processes of the bench, --nice=-20 to 19, on a machine that others use too (default: 0)',
    },
    realtime: {
      ...{ type: 'boolean', default: false },
      help: "measure in Linux's real-time class, for the same reason; needs root",
    },
  },
  records: true,
  trial({ quick, only }) {
    return quick || only.length > 0 ? { because: `${quick ? '--quick measures' : '--only measures'} less` } : undefined;
  },
  run: compare,
});

async function compare(
  values: { quick: boolean; only: string[]; rounds?: string; 'warm-up'?: string; nice: string; realtime: boolean },
  { say, report }: BenchRun,
): Promise<void> {
  const base = values.quick ? QUICK : FULL;
  const warmUpSeconds = wholeNumber('warm-up', values['warm-up'] ?? `${base.seconds.warmUp}`, 1, 300);
  const sizes = {
    rounds: wholeNumber('rounds', values.rounds ?? `${base.rounds}`, 1, 100),
    seconds: { ...base.seconds, warmUp: warmUpSeconds },
  };
  const priority = wholeNumber('nice', values.nice, -20, 19);
  const chosen = namesOf('only', values.only, TARGETS);
  if (priority !== 0) prefer(priority);
  const wanted = TARGETS.filter((name) => name === 'direct' || chosen.includes(name));
  const { signal } = new StopSignal();
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-bench-'));

  const loadBefore = Number(loadavg()[0]?.toFixed(2));
  const missing: Record<string, string> = {};
  const rows: Row[] = [];
  const capacities: CapacityRow[] = [];
  let pauses: Record<string, number> = {};
  const others: number[] = [];
  const running: Pick<RunningTarget, 'stop'>[] = [];
  try {
    const upstream = await startUpstream(folder, priority, signal);
    running.push(upstream);
    const targets: RunningTarget[] = [];
    for (const name of wanted) {
      if (name === 'direct') {
        targets.push({ ...upstream, name, headers: {} });
        continue;
      }
      try {
        say(`${name}: starting`);
        const target = await startTarget(name, { upstreamUrl: upstream.url, folder, priority, signal });
        running.push(target);
        targets.push(target);
      } catch (error) {
        signal.throwIfAborted();
        missing[`left_out_${name}`] = error instanceof Error ? error.message : String(error);
        say(`${name} is left out: ${missing[`left_out_${name}`]}`);
      }
    }
    const cases = casesOf(sizes);
    const able = new Map<TargetName, string[]>();
    for (const target of targets) able.set(target.name, await warmUp(target, cases, sizes, missing, signal, say));
    for (let turn = 1; turn <= sizes.rounds; turn += 1) {
      others.push(round(await busyCores(), 2));
      say(`round ${turn} of ${sizes.rounds}; other programs keep ${others.at(-1)} cores busy`);
      for (const [which, load] of Object.entries(cases)) {
        // the order turns, so that nobody is always measured last
        for (const target of turn % 2 === 1 ? targets : targets.toReversed()) {
          if (!able.get(target.name)?.includes(which)) continue;
          const ahead = values.realtime ? [target.pid, upstream.pid] : [];
          const row = await measure(target, which, load, turn, ahead, signal);
          rows.push(row);
          say(`${which.padEnd(9)} ${target.name.padEnd(12)} ${describe(row)}`);
        }
      }
    }
    for (const streams of STREAM_COUNTS) {
      const direct = new Map<number, Promise<Try>>();
      const tryAt = async (target: RunningTarget, rate: number): Promise<Try> => {
        const perSecond = rate / streams;
        const beginning = (Math.max(RAMP_MS, streams * RAMP_MS_A_STREAM) + SETTLE_MS) / 1000;
        const events = Math.max(2, Math.round(perSecond * (beginning + sizes.seconds.capacity)));
        const measured = await run(target, { kind: 'streams', streams, events, perSecond }, signal);
        return { measured, expected: events * streams };
      };
      const [base] = targets;
      for (const target of targets.slice(1)) {
        if (base === undefined || !able.get(target.name)?.includes('streams')) continue;
        const capacity = await capacityOf(
          (rate) => direct.get(rate) ?? put(direct, rate, tryAt(base, rate)),
          (rate) => tryAt(target, rate),
        );
        capacities.push({ target: target.name, streams, ...capacity });
        say(`capacity  ${target.name.padEnd(12)} ${streams} streams: ${capacity.eventsPerSecond} events/s`);
        if (capacity.endedBy === 'load generator') {
          missing[`capped_${target.name}_${streams}`] = 'the load generator could not send more';
        }
      }
    }
    const ours = targets.find(({ name }) => name === 'gateway');
    const [base] = targets;
    if (ours !== undefined && base !== undefined) {
      pauses = await pausesOf(ours, base, sizes.seconds.pause, signal);
      say(`pause     gateway      ${JSON.stringify(pauses)}`);
    }
  } finally {
    await Promise.all(running.map((one) => one.stop()));
    rmSync(folder, { recursive: true, force: true });
  }
  for (const { target, case: which, measured } of rows) {
    if (measured.failed > 0)
      missing[`failures_${target}_${which}`] =
        `${measured.failed} of ${measured.failed + measured.requests}: no figure`;
  }
  const figures = { ...figuresOf(rows), ...capacityFigures(capacities), ...pauses };
  for (const [name, value] of Object.entries(figures)) process.stdout.write(`${name.padEnd(44)} ${value}\n`);
  const conditions = {
    ...conditionsOf(sizes),
    real_time: values.realtime
      ? `upstream, load generator and target in SCHED_RR while they are measured, so that other programs wait; slices of ${realTimeSlice()} ms`
      : 'no',
    priority: priority === 0 ? 'as every program' : `nice ${priority} for all processes of the bench`,
    load_average_before: loadBefore,
    other_programs_busy_cores: `${median(others)} (median of ${others.join(', ')}, each over a second before a round)`,
    ...missing,
  };
  report({ conditions, figures, rows: [...rows, ...capacities] });
}

function casesOf({ seconds }: Sizes): Record<string, Load> {
  return {
    single: { kind: 'single', seconds: seconds.single },
    open_100: { kind: 'open', rate: 100, seconds: seconds.open },
    open_500: { kind: 'open', rate: 500, seconds: seconds.open },
    open_2000: { kind: 'open', rate: 2000, seconds: seconds.open },
    closed: { kind: 'closed', connections: 32, seconds: seconds.closed },
    streams: {
      ...{ kind: 'streams', streams: STREAMS, perSecond: EVENTS_PER_SECOND },
      events: EVENTS_PER_SECOND * seconds.streams,
    },
  };
}

/** Everybody's code is compiled and connections are open before anything counts. The cases that the target can do. */
async function warmUp(
  target: RunningTarget,
  cases: Record<string, Load>,
  sizes: Sizes,
  missing: Record<string, string>,
  signal: AbortSignal,
  say: (text: string) => void,
): Promise<string[]> {
  // Some do much at their very first requests.
  await run(target, { kind: 'single', seconds: 1 }, signal);
  const plain = await run(target, { kind: 'closed', connections: 32, seconds: sizes.seconds.warmUp }, signal);
  const tried = { streams: 100, events: 2 * EVENTS_PER_SECOND, perSecond: EVENTS_PER_SECOND };
  const streamed = await run(target, { kind: 'streams', ...tried }, signal);
  const able = Object.keys(cases).filter((which) => (which === 'streams' ? works(streamed) : works(plain)));
  for (const [what, result] of [['requests', plain] as const, ['streams', streamed] as const]) {
    if (works(result)) continue;
    missing[`left_out_${target.name}_${what}`] =
      `${result.failed} of ${result.failed + result.requests} failed when tried`;
    say(`${target.name}: ${what} are left out: ${missing[`left_out_${target.name}_${what}`]}`);
  }
  // A target that cannot hold a rate would only measure its queue.
  if (plain.kind !== 'closed' || streamed.kind !== 'streams') return able;
  const needed = (EVENTS_PER_SECOND * tried.streams) / 3;
  return able.filter((which) => {
    const load = cases[which];
    if (load?.kind === 'streams' && streamed.events_per_second < needed) {
      missing[`left_out_${target.name}_${which}`] =
        `it passed on ${round(streamed.events_per_second, 0)} events/s of ${tried.streams} streams when tried`;
      say(`${target.name}: streams are left out: ${missing[`left_out_${target.name}_${which}`]}`);
      return false;
    }
    if (load?.kind !== 'open' || load.rate < plain.rps * 0.8) return true;
    missing[`left_out_${target.name}_${which}`] = `it answered ${round(plain.rps, 0)} requests/s at most when tried`;
    return false;
  });
}

function works(result: Measured): boolean {
  return result.requests > 0 && result.failed === 0;
}

/** `ahead`: the load generator runs in the real-time class. */
async function run({ url, headers }: RunningTarget, load: Load, signal: AbortSignal, ahead = false): Promise<Measured> {
  const spec = JSON.stringify({ target: { url, headers }, load });
  const command = [...(ahead ? REAL_TIME : []), ...pinned(CORES?.load), process.execPath, LOAD, spec];
  return JSON.parse(await printedBy(command, signal)) as Measured;
}

/** The processes `ahead` are in the real-time class meanwhile, and the load generator too when there are any. */
async function measure(
  target: RunningTarget,
  which: string,
  load: Load,
  turn: number,
  ahead: readonly number[],
  signal: AbortSignal,
): Promise<Row> {
  const before = usageOf(target.pid);
  realTime(true, ahead);
  const measured = await run(target, load, signal, ahead.length > 0).finally(() => realTime(false, ahead));
  const after = usageOf(target.pid);
  const units = measured.kind === 'streams' ? measured.events : measured.requests;
  return {
    round: turn,
    target: target.name,
    case: which,
    measured,
    cpu_us: round(((after.cpuSeconds - before.cpuSeconds) * 1e6) / Math.max(1, units), 1),
    rss_mb: round(after.rssBytes / 2 ** 20, 1),
  };
}

/**
 * The longest that an event of another stream waited while large bodies came, in milliseconds, and the same while they went
 * to the upstream directly: they keep the cores busy anyway. The bodies come from a process of their own.
 */
async function pausesOf(
  target: RunningTarget,
  upstream: RunningTarget,
  seconds: number,
  signal: AbortSignal,
): Promise<Record<string, number>> {
  const perSecond = 200;
  const beside = async (receiver: RunningTarget) => {
    const [stream] = await Promise.all([
      run(target, { kind: 'streams', streams: 1, events: perSecond * seconds, perSecond }, signal),
      run(receiver, { kind: 'bodies', bytes: LARGE_BYTES }, signal),
    ]);
    return stream.kind === 'streams' ? stream : undefined;
  };
  const direct = await beside(upstream);
  const through = await beside(target);
  if (direct === undefined || through === undefined) return {};
  return {
    ...{ pause_64mb_p99_ms: round(through.event_p99_ms, 1), pause_64mb_ms: round(through.event_max_ms, 1) },
    ...{
      pause_64mb_elsewhere_p99_ms: round(direct.event_p99_ms, 1),
      pause_64mb_elsewhere_ms: round(direct.event_max_ms, 1),
    },
  };
}

function put<K, V>(map: Map<K, V>, key: K, value: V): V {
  map.set(key, value);
  return value;
}

function describe({ measured, cpu_us, rss_mb }: Row): string {
  const { kind, ...numbers } = measured;
  const parts = Object.entries({ ...numbers, cpu_us, rss_mb }).map(([name, value]) => `${name} ${round(value, 2)}`);
  return parts.join('  ');
}

function conditionsOf(sizes: Sizes) {
  const { seconds } = sizes;
  return {
    machine: 'shared with other programs during the run; what they used is below; ratios are taken within a round',
    request: `chat completion of ${Buffer.byteLength(requestBody())} bytes, answer ${ANSWER.length} bytes, HTTP/1.1 over loopback`,
    upstream: 'Node http, answers at once; each event of a stream carries the time at which it was written',
    rounds: sizes.rounds,
    statistic: 'median over rounds; order of the targets reversed every other round; all of them run all the time',
    closed: `autocannon, 32 connections, ${seconds.closed} s, after ${seconds.warmUp} s that do not count`,
    single: `one request after the other on one connection, ${seconds.single} s`,
    open: `fixed rates of 100, 500 and 2000 requests/s for ${seconds.open} s, times from when a request was due`,
    streams: `${STREAMS} at once x ${EVENTS_PER_SECOND} events/s for ${seconds.streams} s, started over 1 s`,
    events: 'of about 190 bytes; the gateway asks for the usage in each and takes it out again, which is 80 bytes more',
    capacity: `the most events/s of ${STREAM_COUNTS.join(', ')} streams with p99 added under ${MOST_ADDED_P99_MS} ms, in rungs, each for ${seconds.capacity} s`,
    pause: `one stream of 200 events/s through the gateway, while bodies of ${LARGE_BYTES / 1e6} MB of ${LARGE_SHAPES} shapes come; elsewhere: they go to the upstream directly`,
    cpu: 'user and system time of the processes, from /proc',
    cores:
      CORES === undefined
        ? 'not pinned'
        : `load generator and upstream: ${CORES.load}; every gateway: ${CORES.target}, one process (nginx: one worker)`,
    gateway: 'API keys, metrics and logs on (one line a request, to a file)',
    nginx: 'Debian, one worker, access log on, proxy_buffering off, kept connections to the upstream',
    portkey: '@portkey-ai/gateway 1.15.2 on the same Node, no logs',
    litellm: 'litellm[proxy] 1.105.5, one worker, master key, no database; the newest that installed',
    vllm_router: 'vllm-router 0.1.17 (Rust), round robin, no key',
  };
}
