import { setTimeout as sleep } from 'node:timers/promises';
import autocannon from 'autocannon';
import { quantile } from '../statistics.ts';
import { type Client, createClient, type Target } from './client.ts';
import { largeBodies } from './large-bodies.ts';
import { now, type Pace, requestBody } from './shapes.ts';
import { readStream } from './stream-client.ts';

/** Requests before the first that counts. */
const WARM_UP = 50;
/** The load generator's own code is new at first: what is due in this time is sent and not counted. */
const RUN_IN_US = 500_000;
/** More under way than this means that the rate is not sustained; the rest is not sent, and counted. */
const MAX_OUTSTANDING = 2_000;
/** Streams begin one after the other over this time, so that the start of all is not one burst. */
export const RAMP_MS = 1_000;
/** More than 500 take longer to begin: what is measured is streams, not requests. */
export const RAMP_MS_A_STREAM = 2;
/** Times of events count from so long after the last has begun. */
export const SETTLE_MS = 500;

/** One way to load a server. */
export type Load =
  /** As fast as `connections` go, each waiting for its answer. */
  | { kind: 'closed'; connections: number; seconds: number }
  /** One request after the other. */
  | { kind: 'single'; seconds: number }
  /** `rate` requests a second, whatever comes back. */
  | { kind: 'open'; rate: number; seconds: number }
  /** So many streams at the same time, each with so many events at its pace. */
  | StreamLoad
  /** Large bodies of every shape, each of so many bytes. */
  | { kind: 'bodies'; bytes: number };

export interface StreamLoad extends Pace {
  kind: 'streams';
  streams: number;
}

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
      event_max_ms: number;
      first_event_p50_ms: number;
      first_event_p99_ms: number;
    }
  | { kind: 'bodies'; requests: number; failed: number };

export function runLoad(target: Target, load: Load): Promise<Measured> {
  switch (load.kind) {
    case 'closed':
      return closed(target, load.connections, load.seconds);
    case 'single':
      return single(target, load.seconds);
    case 'open':
      return open(target, load.rate, load.seconds);
    case 'streams':
      return streams(target, load);
    case 'bodies':
      return bodies(target, load.bytes);
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

/** Each event carries the time at which it was written; all processes of a machine read the same clock. */
async function streams(target: Target, { streams: count, events, perSecond }: StreamLoad): Promise<Measured> {
  const body = requestBody({ events, perSecond });
  const started = now();
  const rampMs = Math.max(RAMP_MS, count * RAMP_MS_A_STREAM);
  const countFrom = started + 1000 * (rampMs + SETTLE_MS);
  const seen = await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      await sleep((index * rampMs) / count);
      return await readStream(target, body, countFrom);
    }),
  );
  const seconds = (now() - started) / 1e6;
  const times = seen.flatMap((stream) => stream.times);
  const total = seen.reduce((sum, stream) => sum + stream.events, 0);
  const failed = seen.filter(({ good }) => !good).length;
  const event = spread(times);
  const first = spread(seen.flatMap((stream) => stream.first ?? []));
  return {
    kind: 'streams',
    requests: count - failed,
    failed,
    events: total,
    events_per_second: total / seconds,
    event_p50_ms: event.p50_ms,
    event_p99_ms: event.p99_ms,
    event_max_ms: times.reduce((most, time) => Math.max(most, time), 0) / 1000,
    first_event_p50_ms: first.p50_ms,
    first_event_p99_ms: first.p99_ms,
  };
}

/** Bodies of so many bytes, one after the other. A gateway may refuse them, but must answer. */
async function bodies(target: Target, bytes: number): Promise<Measured> {
  const client = createClient(target, 1);
  let failed = 0;
  let count = 0;
  for (const body of largeBodies(bytes)) {
    count += 1;
    const status = await client.send(body).catch(() => 0);
    if (status === 0 || status >= 500) failed += 1;
  }
  await client.close();
  return { kind: 'bodies', requests: count - failed, failed };
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
