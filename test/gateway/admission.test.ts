import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { createAdmission } from '../../gateway/admission/admission.ts';
import { WaitQueue } from '../../gateway/admission/queue.ts';
import { createLoadShedder } from '../../gateway/admission/shedding.ts';
import { gatewaySchema } from '../../gateway/config.ts';
import { createFleet } from '../../gateway/fleet/fleet.ts';
import { createMetrics } from '../../gateway/observe/metrics.ts';
import { until } from '../support/until.ts';
import { fleet, isHealthy, modelsKnown, named, whoAnswers } from './fleet-harness.ts';
import { chat, type ErrorAnswer, metric, metricReaches, setup } from './harness.ts';
import { hang, json, refusedUrl } from './upstream.ts';

const one = (more: object = {}) => ({ admission: { concurrency: 1, ...more } });
const DEPTH = 'crystalkv_gateway_queue_depth';
const shed = (reason: string) => `crystalkv_gateway_shed_total{reason="${reason}"}`;

async function errorOf(response: Response): Promise<ErrorAnswer['error']> {
  return ((await response.json()) as ErrorAnswer).error;
}

describe('a bounded number of requests for each backend', () => {
  it('the others wait and go on in turn', async (t) => {
    const { gateway, upstream } = await setup(t, hang, one());
    const answers = [1, 2, 3].map(async (n) => (await chat(gateway, { n })).text());
    await metricReaches(gateway, DEPTH, 2);
    await until(() => upstream.received.length > 0, 'the first is sent');
    assert.equal(upstream.received.length, 1);
    for (let n = 1; n <= 3; n++) {
      await until(() => upstream.received.length === n, `${n} are sent`);
      upstream.received[n - 1]!.response.end(String(n));
    }
    assert.deepEqual((await Promise.all(answers)).toSorted(), ['1', '2', '3']);
    assert.equal(await metric(gateway, DEPTH), 0);
    assert.equal(await metric(gateway, 'crystalkv_gateway_queue_seconds_count'), 2);
  });

  it('a slot at any backend of the model will do', async (t) => {
    const { gateway, upstreams, counts } = await fleet(t, [hang, hang], one());
    const answers = [chat(gateway), chat(gateway), chat(gateway)];
    await metricReaches(gateway, DEPTH, 1);
    await until(() => counts().join() === '1,1', 'each has one');
    upstreams[1]!.received[0]!.response.end('{}');
    await until(() => upstreams[1]!.received.length === 2, 'the third got the free slot');
    for (const { received } of upstreams) for (const { response } of received) response.end('{}');
    await Promise.all(answers);
  });

  it('requests of one model do not wait for another’s', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], {
      ...one(),
      models: { interval_ms: 500 },
    });
    upstreams[0]!.models = ['small'];
    upstreams[1]!.models = ['large'];
    await modelsKnown(gateway);
    upstreams[0]!.script = hang;
    const waiting = [chat(gateway, { model: 'small' }), chat(gateway, { model: 'small' })];
    await metricReaches(gateway, DEPTH, 1);
    for (let i = 0; i < 3; i++) assert.equal(await whoAnswers(gateway, { model: 'large' }), 'b');
    await until(() => upstreams[0]!.received.length > 0, 'the first is sent');
    upstreams[0]!.received[0]!.response.end('{}');
    await until(() => upstreams[0]!.received.length === 2, 'the next is sent');
    upstreams[0]!.received[1]!.response.end('{}');
    await Promise.all(waiting);
  });

  it('what costs a backend nothing does not wait', async (t) => {
    const { gateway, upstream } = await setup(t, hang, one());
    const busy = chat(gateway);
    await until(() => upstream.received.length === 1, 'the slot is taken');
    upstream.script = json('{}');
    assert.equal((await fetch(`${gateway.url}/version`)).status, 200);
    upstream.received[0]!.response.end('{}');
    await busy;
  });

  it('a backend that comes back serves those that wait', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), hang], {
      ...one(),
      health: { interval_ms: 50, failures: 1 },
    });
    upstreams[0]!.healthy = false;
    await isHealthy(gateway, upstreams[0]!, false);
    const busy = chat(gateway);
    await until(() => upstreams[1]!.received.length === 1, 'the well one is busy');
    const waits = whoAnswers(gateway, {});
    await metricReaches(gateway, DEPTH, 1);
    upstreams[0]!.healthy = true;
    assert.equal(await waits, 'a');
    upstreams[1]!.received[0]!.response.end('{}');
    await busy;
  });
});

describe('the queue', () => {
  it('is bounded: then 429 with Retry-After', async (t) => {
    const { gateway, upstream } = await setup(t, hang, one({ queue: 1 }));
    const answers = [chat(gateway), chat(gateway)];
    await metricReaches(gateway, DEPTH, 1);
    const response = await chat(gateway);
    assert.equal(response.status, 429);
    assert.match(response.headers.get('retry-after') ?? '', /^\d+$/);
    const error = await errorOf(response);
    assert.deepEqual([error.type, error.code, error.param], ['gateway_queue_full', 429, null]);
    assert.equal(await metric(gateway, shed('queue_full')), 1);
    await until(() => upstream.received.length > 0, 'the first is sent');
    upstream.script = json('{}');
    upstream.received[0]!.response.end('{}');
    assert.deepEqual(
      (await Promise.all(answers)).map(({ status }) => status),
      [200, 200],
    );
  });

  it('is bounded in bytes too', async (t) => {
    const { gateway, upstream } = await setup(t, hang, one({ queue_bytes: 2000 }));
    const text = 'x'.repeat(900);
    const answers = [chat(gateway, { text }), chat(gateway, { text })];
    await metricReaches(gateway, DEPTH, 1);
    assert.equal((await chat(gateway, { text: text + text })).status, 429);
    await until(() => upstream.received.length > 0, 'the first is sent');
    upstream.script = json('{}');
    upstream.received[0]!.response.end('{}');
    await Promise.all(answers);
  });

  it('0: nothing waits', async (t) => {
    const { gateway, upstream } = await setup(t, hang, one({ queue: 0 }));
    const busy = chat(gateway);
    await until(() => upstream.received.length === 1, 'the slot is taken');
    assert.equal((await chat(gateway)).status, 429);
    upstream.received[0]!.response.end('{}');
    await busy;
  });

  it('the wait is bounded: then 503 with Retry-After', async (t) => {
    const { gateway, upstream } = await setup(t, hang, one({ queue_ms: 50 }));
    const busy = chat(gateway);
    await until(() => upstream.received.length === 1, 'the slot is taken');
    const response = await chat(gateway);
    assert.equal(response.status, 503);
    assert.match(response.headers.get('retry-after') ?? '', /^\d+$/);
    assert.equal((await errorOf(response)).type, 'gateway_queue_timeout');
    assert.equal(await metric(gateway, shed('queue_timeout')), 1);
    assert.equal(await metric(gateway, DEPTH), 0);
    upstream.received[0]!.response.end('{}');
    await busy;
  });

  it('a client that leaves frees its slot at once, and the backend never hears of it', async (t) => {
    const { gateway, upstream } = await setup(t, hang, one({ queue: 1 }));
    const busy = chat(gateway);
    await until(() => upstream.received.length === 1, 'the slot is taken');
    const abort = new AbortController();
    const leaves = chat(gateway, {}, { signal: abort.signal });
    await metricReaches(gateway, DEPTH, 1);
    abort.abort();
    await assert.rejects(leaves);
    await metricReaches(gateway, 'crystalkv_gateway_client_aborts_total{stage="queued"}', 1);
    assert.equal(await metric(gateway, DEPTH), 0);
    const next = chat(gateway);
    await metricReaches(gateway, DEPTH, 1);
    await until(() => upstream.received.length > 0, 'the first is sent');
    upstream.script = json('{}');
    upstream.received[0]!.response.end('{}');
    await Promise.all([busy, next]);
    assert.equal(upstream.received.length, 2);
  });

  it('the total time holds in it: 504; and a gateway that stops answers 503', async (t) => {
    const { gateway } = await setup(t, hang, { ...one(), timeouts: { total_ms: 1000 } });
    const busy = chat(gateway);
    const waits = chat(gateway);
    const statuses = (await Promise.all([busy, waits])).map(({ status }) => status);
    assert.deepEqual(statuses, [504, 504]);
    const other = await setup(t, hang, one());
    const answers = [chat(other.gateway), chat(other.gateway)];
    await metricReaches(other.gateway, DEPTH, 1);
    await other.gateway.close();
    for (const answer of answers) assert.equal((await errorOf(await answer)).type, 'gateway_draining');
  });

  it('a higher priority goes first, and takes the slot of the lowest when the queue is full', async (t) => {
    const config = gatewaySchema.parse({
      backends: [await refusedUrl()],
      health: { interval_ms: 0 },
      admission: { concurrency: 1, queue: 2 },
    });
    const fleet = createFleet(config, {
      times: config.timeouts,
      policy: {},
      logger: pino({ level: 'silent' }),
      concurrency: () => 1,
      onAdded() {},
      onGone() {},
      onDns() {},
    });
    t.after(() => fleet.close());
    const registry = new Registry();
    const admission = createAdmission(fleet, () => config.admission, createMetrics(registry));
    const order: string[] = [];
    const enter = async (name: string, priority: number) => {
      const demand = { model: undefined, tried: [] };
      const signal = new AbortController().signal;
      const slot = await admission.enter({ demand, priority, bytes: 0, signal, onQueued() {} });
      order.push(name);
      admission.leave(slot!.backend);
    };
    const first = admission.enter({
      demand: { model: undefined, tried: [] },
      priority: 0,
      bytes: 0,
      signal: new AbortController().signal,
      onQueued() {},
    });
    assert.ok(!(first instanceof Promise));
    const a = enter('a', 0);
    const b = enter('b', 0);
    const c = enter('c', 5);
    await assert.rejects(b, { code: 'queue_full' });
    await assert.rejects(enter('d', 0), { code: 'queue_full' });
    admission.leave(first.backend);
    await Promise.all([a, c]);
    assert.deepEqual(order, ['c', 'a']);
    assert.match(await registry.metrics(), /shed_total\{reason="displaced"\} 1/);
  });

  it('serves the highest priority first, and among equals the first that came', () => {
    const queue = new WaitQueue<{ name: string; priority: number; bytes: number }>();
    const names = () => [...queue].map(({ name }) => name).join('');
    const items = [0, 1, 0, 2, 1].map((priority, i) => ({ name: 'abcde'[i]!, priority, bytes: 0 }));
    for (const item of items) queue.add(item);
    assert.equal(names(), 'dbeac');
    assert.equal(queue.last!.name, 'c');
    assert.equal(queue.remove(items[1]!), true);
    assert.equal(queue.remove(items[1]!), false);
    assert.equal(names(), 'deac');
    assert.deepEqual([queue.length, queue.first(2).length], [4, 2]);
  });
});

describe('load shedding', () => {
  it('turns new requests away while the event loop is late, and takes them again after', async (t) => {
    let limit = 1;
    const shedder = createLoadShedder(() => limit);
    t.after(() => shedder.close());
    assert.equal(shedder.overloaded, false);
    const end = performance.now() + 10_000;
    await new Promise<void>((resolve) => {
      const block = () => {
        const until = performance.now() + 50;
        while (performance.now() < until);
        if (shedder.overloaded || performance.now() > end) resolve();
        else setTimeout(block, 0);
      };
      block();
    });
    assert.equal(shedder.overloaded, true);
    assert.ok(shedder.delayMs > 1);
    limit = 0;
    assert.equal(shedder.overloaded, false);
    limit = 1000;
    await until(() => !shedder.overloaded, 'it recovers');
  });

  it('answers 503 with Retry-After, keeps answering for itself, and counts', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'), { admission: { event_loop_delay_ms: 1 } });
    const end = performance.now() + 20_000;
    let response = await chat(gateway);
    while (response.status === 200 && performance.now() < end) {
      const until = performance.now() + 100;
      while (performance.now() < until);
      response = await chat(gateway);
    }
    assert.equal(response.status, 503);
    assert.equal(response.headers.get('retry-after'), '1');
    assert.equal((await errorOf(response)).type, 'gateway_overloaded');
    assert.equal((await fetch(`${gateway.url}/health`)).status, 200);
    assert.ok((await metric(gateway, shed('event_loop')))! >= 1);
    assert.ok(upstream.received.length > 0);
  });
});
