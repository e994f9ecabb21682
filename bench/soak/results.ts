import { type Sample, total } from '../../scripts/metrics/text.ts';
import type { BenchRun } from '../program.ts';
import { add, round } from '../statistics.ts';
import { BEHAVIOURS, NAMES } from './behaviours.ts';
import type { Disturber } from './disturb.ts';
import type { IdleSnapshot } from './idle-snapshot.ts';
import { keyDisagreements } from './key-tally.ts';
import { KEY_NAMES, planOf } from './keys.ts';
import { added } from './sockets.ts';
import { disagreements } from './tally.ts';
import { type Seen, UNRULY_SHARE } from './traffic.ts';

const HEAP_GROWTH = 0.1;
/** Of the whole process: what V8 and the allocator keep for later differs more than the heap. */
const RSS_GROWTH = 0.25;

export interface Result {
  minutes: number;
  seen: Seen;
  disturbed: Disturber['counts'];
  /** What was wrong with the counters in Redis. */
  inRedis: readonly string[];
  before: IdleSnapshot;
  after: IdleSnapshot;
  metrics: readonly Sample[];
}

const growthOf = ({ before, after }: Result): number => (after.heap - before.heap) / before.heap;
const localDecisions = ({ metrics }: Result): number => total(metrics, 'crystalkv_gateway_limit_fallbacks_total');

/** One line each. */
export function problemsOf(result: Result): string[] {
  const { seen, disturbed, before, after, metrics } = result;
  const problems = [...disagreements(seen.tally, metrics), ...keyDisagreements(seen.keys, metrics), ...result.inRedis];
  for (const [what, times] of seen.unexpected) problems.push(`${what}: ${times} times`);
  if (seen.keys.get('tight')?.limited === 0) problems.push('the tight limits refused nothing');
  if (disturbed.frozen + disturbed.killed > 0) {
    if (localDecisions(result) === 0) problems.push('no limit was decided without Redis, which was away');
    if (seen.withoutRedis === 0) problems.push('no key with limits got an answer while Redis was away');
  }
  const growth = growthOf(result);
  if (growth > HEAP_GROWTH) problems.push(`the heap grew by ${round(growth * 100, 1)} %`);
  if (after.rss > before.rss * (1 + RSS_GROWTH)) {
    problems.push(`the process grew from ${round(before.rss / 2 ** 20, 1)} to ${round(after.rss / 2 ** 20, 1)} MB`);
  }
  const held = total(metrics, 'crystalkv_gateway_body_bytes');
  if (held !== 0) problems.push(`${held} bytes of bodies are held while nothing runs`);
  for (const more of added(before.sockets, after.sockets)) problems.push(`sockets: ${more} than before`);
  return problems;
}

/** Prints all, and writes a report. */
export function report(result: Result, problems: readonly string[], run: BenchRun): void {
  for (const problem of problems) process.stdout.write(`PROBLEM  ${problem}\n`);
  const figures = figuresOf(result, problems.length);
  for (const [name, value] of Object.entries(figures)) process.stdout.write(`${name.padEnd(24)} ${value}\n`);
  const rows = [...result.seen.tally.statuses]
    .sort(([a], [b]) => a - b)
    .map(([status, requests]) => ({ status, requests }));
  run.report({ conditions: CONDITIONS, figures, rows });
}

function figuresOf(result: Result, problems: number): Record<string, number> {
  const { minutes, before, after, disturbed, seen } = result;
  const { tally, keys } = seen;
  return {
    minutes,
    requests: tally.sent,
    uploads: seen.uploads,
    left: tally.left,
    told: tally.told,
    reset: tally.reset,
    unreachable: tally.unreachable,
    limited: add([...keys.values()].map(({ limited }) => limited)),
    redis_frozen: disturbed.frozen,
    redis_killed: disturbed.killed,
    reloads: disturbed.reloaded,
    limits_without_redis: localDecisions(result),
    answers_without_redis: seen.withoutRedis,
    heap_before_mb: round(before.heap / 2 ** 20, 2),
    heap_after_mb: round(after.heap / 2 ** 20, 2),
    heap_growth_percent: round(growthOf(result) * 100, 2),
    rss_before_mb: round(before.rss / 2 ** 20, 1),
    rss_after_mb: round(after.rss / 2 ** 20, 1),
    sockets_before: add([...before.sockets.values()]),
    sockets_after: add([...after.sockets.values()]),
    problems,
  };
}

const CONDITIONS = {
  clients: `${add(KEY_NAMES.map((key) => planOf(key).clients))}, each pauses up to 60 ms between requests (300 ms with tight limits); ${UNRULY_SHARE * 100} % of the requests of keys mixed and free leave or read slowly`,
  keys: KEY_NAMES.map((key) => `${key} ${planOf(key).clients} clients`).join(', '),
  upstream: `two scripted ones, of which one comes and goes, and an address that refuses; ${NAMES.map((name) => `${name} ${BEHAVIOURS[name].weight}`).join(', ')} (weights)`,
  redis: 'a process of its own; frozen for 5 s and killed for 3 s in turn, a reload of the configuration after each',
  heap: 'after full collections with no request under way, first after 30 % of the time',
  counters:
    'requests by status, aborts, told and reset streams, in flight, refusals and tokens by key: the same as the load generator saw; tokens in Redis too, before it was first disturbed',
};
