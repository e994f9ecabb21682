import { setTimeout as sleep } from 'node:timers/promises';
import autocannon from 'autocannon';
import { quantile } from '../statistics.ts';
import { type Client, createClient, type Target } from './client.ts';
import { now, requestBody, sentAt } from './shapes.ts';

/** Requests before the first that counts. */
const WARM_UP = 50;
/** The load generator's own code is new at first: what is due in this time is sent and not counted. */
const RUN_IN_US = 500_000;
/** More under way than this means that the rate is not sustained; the rest is not sent, and counted. */
const MAX_OUTSTANDING = 2_000;
/** Streams begin one after the other over this time, so that the start of all is not one burst. */
const RAMP_MS = 1_000;

/** One way to load a server. */
export type Load =
  /** As fast as `connections` go, each waiting for its answer. */
  | { kind: 'closed'; connections: number; seconds: number }
  /** One request after the other. */
  | { kind: 'single'; seconds: number }
  /** `rate` requests a second, whatever comes back. */
  | { kind: 'open'; rate: number; seconds: number }
  /** So many streams at the same time, each with so many events. */
  | { kind: 'streams'; streams: number; events: number };

/** Times in milliseconds. `failed` counts broken requests and answers that are not 200. */
export type Measured =
  | { kind: 'closed'; requests: number; failed: number; rps: number }
  | { kind: 'single'; requests: number; failed: number; p50_ms: number; p99_ms: number }
  | { kind: 'open'; requests: number; failed: number; not_sent: number; p50_ms: number; p99_ms: number }
  | {
      kind: 'streams';
      requests: number;
      failed: number;
      events: number;
      events_per_second: number;
      event_p50_ms: number;
      event_p99_ms: number;
      first_event_p50_ms: number;
      first_event_p99_ms: number;
    };

export function runLoad(target: Target, load: Load): Promise<Measured> {
  switch (load.kind) {
    case 'closed':
      return closed(target, load.connections, load.seconds);
    case 'single':
      return single(target, load.seconds);
    case 'open':
      return open(target, load.rate, load.seconds);
    case 'streams':
      return streams(target, load.streams, load.events);
  }
}

async function closed({ url, headers }: Target, connections: number, seconds: number): Promise<Measured> {
  const result = await autocannon({
    url: `${url}/v1/chat/completions`,
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: requestBody(),
    connections,
    duration: seconds,
  });
  const failed = result.errors + result.non2xx;
  return { kind: 'closed', requests: result['2xx'], failed, rps: result['2xx'] / result.duration };
}

async function single(target: Target, seconds: number): Promise<Measured> {
  const client = createClient(target, 1);
  const times: number[] = [];
  let failed = 0;
  const one = async () => {
    const started = now();
    if (await answered(client)) times.push(now() - started);
    else failed += 1;
  };
  for (let i = 0; i < WARM_UP; i++) await answered(client);
  const end = now() + seconds * 1e6;
  while (now() < end) await one();
  await client.close();
  return { kind: 'single', requests: times.length, failed, ...spread(times) };
}

/** Times run from when a request was due, not from when it was sent: what held it up is part of what a client sees. */
async function open(target: Target, rate: number, seconds: number): Promise<Measured> {
  const client = createClient(target, MAX_OUTSTANDING);
  await Promise.all(Array.from({ length: WARM_UP }, () => answered(client)));
  const count = Math.round(rate * (seconds + RUN_IN_US / 1e6));
  const times: number[] = [];
  const running = new Set<Promise<void>>();
  let failed = 0;
  let notSent = 0;
  const started = now();
  for (let next = 0; next < count; ) {
    for (; next < count; next++) {
      const due = started + (next * 1e6) / rate;
      if (due > now()) break;
      if (running.size >= MAX_OUTSTANDING) {
        notSent += 1;
        continue;
      }
      const counts = due - started >= RUN_IN_US;
      const request = answered(client).then((ok) => {
        if (ok && counts) times.push(now() - due);
        else if (!ok) failed += 1;
        running.delete(request);
      });
      running.add(request);
    }
    await sleep(1);
  }
  await Promise.all(running);
  await client.close();
  return { kind: 'open', requests: times.length, failed, not_sent: notSent, ...spread(times) };
}

/** Each event carries the time at which it was written; all processes read the same clock. */
async function streams(target: Target, count: number, events: number): Promise<Measured> {
  const client = createClient(target, count);
  const body = requestBody(events);
  const times: number[] = [];
  const firsts: number[] = [];
  let failed = 0;
  const one = async (index: number) => {
    await sleep((index * RAMP_MS) / count);
    const started = now();
    let first = true;
    let rest = '';
    const onData = (piece: string) => {
      const arrived = now();
      const blocks = (rest + piece).split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? '';
      for (const block of blocks) {
        const sent = sentAt(block);
        if (sent === undefined) continue;
        times.push(arrived - sent);
        if (first) firsts.push(arrived - started);
        first = false;
      }
    };
    const status = await client.send(body, onData).catch(() => 0);
    if (status !== 200) failed += 1;
  };
  const started = now();
  await Promise.all(Array.from({ length: count }, (_, index) => one(index)));
  const seconds = (now() - started) / 1e6;
  await client.close();
  const event = spread(times);
  const firstEvent = spread(firsts);
  return {
    kind: 'streams',
    requests: count - failed,
    failed,
    events: times.length,
    events_per_second: times.length / seconds,
    event_p50_ms: event.p50_ms,
    event_p99_ms: event.p99_ms,
    first_event_p50_ms: firstEvent.p50_ms,
    first_event_p99_ms: firstEvent.p99_ms,
  };
}

async function answered(client: Client): Promise<boolean> {
  try {
    return (await client.send(BODY)) === 200;
  } catch {
    return false;
  }
}

const BODY = requestBody();

/** Microseconds in, milliseconds out. NaN when nothing was measured. */
function spread(times: readonly number[]): { p50_ms: number; p99_ms: number } {
  if (times.length === 0) return { p50_ms: Number.NaN, p99_ms: Number.NaN };
  return { p50_ms: quantile(times, 0.5) / 1000, p99_ms: quantile(times, 0.99) / 1000 };
}
