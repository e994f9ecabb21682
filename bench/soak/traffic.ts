import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../../model/random.ts';
import { usageOf } from '../gateway/proc.ts';
import { add, round } from '../statistics.ts';
import { BEHAVIOURS, type Behaviour, isUpload } from './behaviours.ts';
import { bodyOf } from './bodies.ts';
import { createSoakClient, LEAVES, type Leaves, type SoakClient } from './client.ts';
import type { Disturber } from './disturb.ts';
import { tokensOf, verdictOf } from './expectations.ts';
import { emptyKeyTally, type KeyTally } from './key-tally.ts';
import { isLimited, KEY_NAMES, type KeyName, planOf } from './keys.ts';
import { count, emptyTally, type Tally } from './tally.ts';
import type { Testbed } from './testbed.ts';

const LEAVE_MS = 60;
/** The share of requests of unruly keys whose client does not simply stay. */
export const UNRULY_SHARE = 0.2;
const PROGRESS_MS = 10_000;

/** All that the load generator saw. */
export interface Seen {
  tally: Tally;
  keys: ReadonlyMap<KeyName, KeyTally>;
  uploads: number;
  /** Answers to keys with limits that began and ended in one outage of Redis. */
  withoutRedis: number;
  /** What should not have come, and how often. */
  unexpected: Map<string, number>;
}

export function nothingSeen(): Seen {
  const keys = new Map(KEY_NAMES.map((name) => [name, emptyKeyTally()]));
  return { tally: emptyTally(), keys, uploads: 0, withoutRedis: 0, unexpected: new Map() };
}

/** All clients, until `end` (in performance.now()). Their connections are closed then. */
export async function drive(
  testbed: Testbed,
  disturber: Disturber,
  seen: Seen,
  end: number,
  { random, signal }: { random: Random; signal: AbortSignal },
): Promise<void> {
  const client = createSoakClient(testbed.url);
  const { tally } = seen;
  const progress = setInterval(() => {
    const left = Math.max(0, Math.round((end - performance.now()) / 1000));
    const rss = round(usageOf(testbed.gateway.pid).rssBytes / 2 ** 20, 0);
    process.stdout.write(`${left} s left  ${tally.sent} requests  ${tally.left} left early  rss ${rss} MB\n`);
  }, PROGRESS_MS);
  try {
    const all = KEY_NAMES.flatMap((key) => Array.from({ length: planOf(key).clients }, () => one(client, key)));
    await Promise.all(all);
  } finally {
    clearInterval(progress);
    client.close();
  }

  async function one(client: SoakClient, key: KeyName): Promise<void> {
    const { behaviours, unruly, thinkMs } = planOf(key);
    while (performance.now() < end) {
      const behaviour = choose(random, behaviours);
      const leaves: Leaves = unruly && random.fraction() < UNRULY_SHARE ? random.pick(LEAVES) : 'no';
      await ask(client, key, behaviour, leaves);
      await sleep(random.integer(0, thinkMs), undefined, { signal });
    }
  }

  async function ask(client: SoakClient, key: KeyName, behaviour: Behaviour, leaves: Leaves): Promise<void> {
    const body = bodyOf(behaviour, random);
    const { outage } = disturber;
    const { secret } = testbed.keys[key];
    const result = await client.send({ body, secret, leaves, leaveAfterMs: random.integer(0, LEAVE_MS) });
    count(tally, result);
    if (isUpload(behaviour)) seen.uploads += 1;
    const ofKey = seen.keys.get(key) as KeyTally;
    const tokens = planOf(key).grants === undefined ? { least: 0, most: 0 } : tokensOf(behaviour, body, result);
    ofKey.tokens.least += tokens.least;
    ofKey.tokens.most += tokens.most;
    if (result.kind === 'left') return;
    const verdict = verdictOf(key, behaviour, body, result);
    if (verdict === 'limited') ofKey.limited += 1;
    else if (verdict === 'unreachable') tally.unreachable += 1;
    else if (verdict !== 'good') seen.unexpected.set(verdict.problem, (seen.unexpected.get(verdict.problem) ?? 0) + 1);
    if (outage !== 0 && outage === disturber.outage && isLimited(key) && result.status === 200) seen.withoutRedis += 1;
  }
}

function choose(random: Random, names: readonly Behaviour[]): Behaviour {
  let at = random.integer(0, add(names.map((name) => BEHAVIOURS[name].weight)) - 1);
  for (const name of names) {
    at -= BEHAVIOURS[name].weight;
    if (at < 0) return name;
  }
  return 'answer';
}
