/** Mixed traffic with aborts and faults for minutes; see `--help`. */
import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { stringify } from 'yaml';
import { createRandom, type Random } from '../model/random.ts';
import { freePorts } from '../scripts/ports.ts';
import { ROOT } from '../scripts/processes.ts';
import { StopSignal } from '../scripts/stop-signal.ts';
import { type Child, startChild } from './gateway/child.ts';
import { usageOf } from './gateway/proc.ts';
import { readMetrics } from './metrics-text.ts';
import { writeReport } from './report.ts';
import { BEHAVIOURS, type Behaviour, NAMES, SHED, UNREACHABLE } from './soak/behaviours.ts';
import { createSoakClient, LEAVES, type Leaves, type SoakClient } from './soak/client.ts';
import { type Inspector, openInspector } from './soak/inspector.ts';
import { count, disagreements, emptyTally, type Tally } from './soak/tally.ts';
import { add, round } from './statistics.ts';

const CLIENTS = 48;
/** The longest pause of a client between two requests. */
const THINK_MS = 60;
/** Traffic before the first look at the heap: code is compiled and pools are as large as they get. */
const WARM_UP_SHARE = 0.2;
const LEAVE_MS = 60;
/** The share of clients that do not simply stay. */
const UNRULY_SHARE = 0.2;
const HEAP_GROWTH = 0.1;
const QUIET_MS = 30_000;
const READY_MS = 30_000;
const PROGRESS_MS = 10_000;

const HELP = `Sends mixed traffic with aborts and faults through a gateway process for some minutes, and fails unless afterwards the heap
is within ${HEAP_GROWTH * 100} % of what it was, no socket is left, and the gateway's counters agree with the load generator's.
Writes bench/results/soak.json.

  --minutes N   how long (default 10; 0.5 to 600); nothing is written below 3
  --seed N      order of the traffic (default 1)
  --help        this text
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '10' },
      seed: { type: 'string', default: '1' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const minutes = Number(values.minutes);
  if (!(minutes >= 0.5 && minutes <= 600)) {
    throw new RangeError(`--minutes must be a number from 0.5 to 600, got "${values.minutes}"`);
  }
  const { signal } = new StopSignal();
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-soak-'));
  const [first = 0, second = 0, gone = 0, port = 0, inspect = 0] = await freePorts(5);
  const children: Child[] = [];
  let keep = false;
  try {
    const start = async (name: string, args: string[], readyUrl: string) => {
      const command = [process.execPath, ...args];
      const child = await startChild({ name, command, folder, readyUrl, readyMs: READY_MS }, signal);
      children.push(child);
      return child;
    };
    const upstreams = [first, second].map((at) => `http://127.0.0.1:${at}`);
    const script = join(ROOT, 'bench/soak/upstream.ts');
    await Promise.all(
      [first, second].map((at) => start(`upstream-${at}`, [script, `${at}`], `http://127.0.0.1:${at}`)),
    );
    const config = join(folder, 'crystal-kv.yaml');
    const url = `http://127.0.0.1:${port}`;
    writeFileSync(config, stringify({ gateway: gatewayConfig(port, [...upstreams, `http://127.0.0.1:${gone}`]) }));
    const args = [`--inspect=127.0.0.1:${inspect}`, join(ROOT, 'gateway/main.ts'), '--config', config];
    const gateway = await start('gateway', args, `${url}/ready`);
    const inspector = await openInspector(inspect);
    try {
      keep = !(await soak({
        url,
        upstreams,
        gateway,
        inspector,
        minutes,
        random: createRandom(Number(values.seed)),
        signal,
      }));
    } finally {
      inspector.close();
    }
  } catch (error) {
    keep = !signal.aborted;
    throw error;
  } finally {
    await Promise.all(children.map((child) => child.close()));
    if (keep) process.stdout.write(`logs: ${folder}\n`);
    else rmSync(folder, { recursive: true, force: true });
  }
}

interface Soak {
  url: string;
  upstreams: readonly string[];
  gateway: Child;
  inspector: Inspector;
  minutes: number;
  random: Random;
  signal: AbortSignal;
}

/** Short times, so that what hangs is cut often; so few places that requests queue at times. */
const gatewayConfig = (port: number, urls: readonly string[]) => ({
  port,
  backends: urls.map((url) => ({ url })),
  timeouts: { connect_ms: 1000, first_byte_ms: 3000, idle_ms: 3000, total_ms: 20_000 },
  models: { learn: false },
  admission: { concurrency: 16, queue: 24, queue_ms: 2000, event_loop_delay_ms: 0 },
});

/** Whether all is well. */
async function soak(run: Soak): Promise<boolean> {
  const { url, gateway, inspector, minutes } = run;
  const tally = emptyTally();
  const unexpected = new Map<string, number>();
  const look = async (): Promise<Look> => {
    await quiet(run);
    return { heap: await inspector.heapBytes(), sockets: sockets(gateway.pid), rss: usageOf(gateway.pid).rssBytes };
  };
  const traffic = (share: number) => drive(run, minutes * 60_000 * share, tally, unexpected);
  await traffic(WARM_UP_SHARE);
  const before = await look();
  await traffic(1 - WARM_UP_SHARE);
  const after = await look();
  const metrics = await readMetrics(url);
  const growth = (after.heap - before.heap) / before.heap;

  const problems = disagreements(tally, metrics);
  for (const [what, times] of unexpected) problems.push(`${what}: ${times} times`);
  if (growth > HEAP_GROWTH) problems.push(`the heap grew by ${round(growth * 100, 1)} %`);
  if (after.sockets > before.sockets) problems.push(`${after.sockets - before.sockets} more sockets than before`);
  for (const problem of problems) process.stdout.write(`PROBLEM  ${problem}\n`);
  const figures = {
    minutes,
    requests: tally.sent,
    left: tally.left,
    told: tally.told,
    reset: tally.reset,
    unreachable: tally.unreachable,
    heap_before_mb: round(before.heap / 2 ** 20, 2),
    heap_after_mb: round(after.heap / 2 ** 20, 2),
    heap_growth_percent: round(growth * 100, 2),
    rss_after_mb: round(after.rss / 2 ** 20, 1),
    sockets_before: before.sockets,
    sockets_after: after.sockets,
    problems: problems.length,
  };
  for (const [name, value] of Object.entries(figures)) process.stdout.write(`${name.padEnd(20)} ${value}\n`);
  if (minutes >= 3) {
    const conditions = {
      clients: `${CLIENTS}, each pauses up to ${THINK_MS} ms between requests; ${UNRULY_SHARE * 100} % leave or read slowly`,
      upstream: `two scripted ones and an address that refuses; ${NAMES.map((name) => `${name} ${BEHAVIOURS[name].weight}`).join(', ')} (weights)`,
      heap: `after full collections with no request under way, first after ${WARM_UP_SHARE * 100} % of the time`,
      counters: 'requests by status, aborts, told and reset streams, in flight: the same as the load generator saw',
    };
    const rows = [...tally.statuses].sort(([a], [b]) => a - b).map(([status, requests]) => ({ status, requests }));
    process.stdout.write(`wrote ${writeReport('soak', { conditions, figures, rows })}\n`);
  }
  if (problems.length > 0) process.exitCode = 1;
  return problems.length === 0;
}

interface Look {
  heap: number;
  sockets: number;
  rss: number;
}

/** All clients, for so long. Their connections are closed at the end. */
async function drive(
  { url, random, signal, gateway }: Soak,
  ms: number,
  tally: Tally,
  unexpected: Map<string, number>,
) {
  const client = createSoakClient(url);
  const end = performance.now() + ms;
  const progress = setInterval(() => {
    const left = Math.max(0, Math.round((end - performance.now()) / 1000));
    const rss = round(usageOf(gateway.pid).rssBytes / 2 ** 20, 0);
    process.stdout.write(`${left} s left  ${tally.sent} requests  ${tally.left} left early  rss ${rss} MB\n`);
  }, PROGRESS_MS);
  try {
    await Promise.all(Array.from({ length: CLIENTS }, () => one(client, end)));
  } finally {
    clearInterval(progress);
    client.close();
  }

  async function one(client: SoakClient, until: number): Promise<void> {
    while (performance.now() < until) {
      signal.throwIfAborted();
      const behaviour = chooseBehaviour(random);
      const leaves: Leaves = random.fraction() < UNRULY_SHARE ? random.pick(LEAVES) : 'no';
      const result = await client.send(behaviour, leaves, random.integer(0, LEAVE_MS));
      count(tally, result);
      if (result.kind !== 'left') {
        const seen = `${result.status} ${result.kind}`;
        if ((BEHAVIOURS[behaviour].expected as readonly string[]).includes(seen) || SHED.includes(result.status)) {
          // as it should be
        } else if (seen === UNREACHABLE) tally.unreachable += 1;
        else unexpected.set(`${behaviour} gave ${seen}`, (unexpected.get(`${behaviour} gave ${seen}`) ?? 0) + 1);
      }
      await sleep(random.integer(0, THINK_MS));
    }
  }
}

const TOTAL_WEIGHT = add(NAMES.map((name) => BEHAVIOURS[name].weight));

function chooseBehaviour(random: Random): Behaviour {
  let at = random.integer(0, TOTAL_WEIGHT - 1);
  for (const name of NAMES) {
    at -= BEHAVIOURS[name].weight;
    if (at < 0) return name;
  }
  return 'answer';
}

/** Waits until no request is under way anywhere and idle connections have been closed. */
async function quiet({ upstreams, gateway, signal }: Soak): Promise<void> {
  const deadline = performance.now() + QUIET_MS;
  let before = Number.POSITIVE_INFINITY;
  for (;;) {
    signal.throwIfAborted();
    const open = await Promise.all(upstreams.map(async (at) => Number(await (await fetch(`${at}/open`)).text())));
    const now = sockets(gateway.pid);
    if (add(open) === 0 && now >= before) return;
    before = now;
    if (performance.now() > deadline) {
      if (add(open) === 0) return;
      throw new Error(`${add(open)} requests are still under way at the upstream ${QUIET_MS} ms after the last client`);
    }
    // Longer than undici keeps an idle connection.
    await sleep(5_000);
  }
}

function sockets(pid: number): number {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).filter((name) => {
    try {
      return readlinkSync(join(folder, name)).startsWith('socket:');
    } catch {
      // closed meanwhile
      return false;
    }
  }).length;
}

try {
  await main();
} catch (error) {
  process.stderr.write(`soak: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
