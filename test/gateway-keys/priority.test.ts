import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { chat, metric, metricReaches } from '../gateway/harness.ts';
import { hang } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';
import { bearer, newKey, setupKeyed } from './harness.ts';

const DEPTH = 'crystalkv_gateway_queue_depth';

describe('the priority of a key', () => {
  it('lets its requests leave the queue first, and take the last place of a full one', async (t) => {
    const [low, high] = [newKey('low'), newKey('high', { priority: 10 })];
    const { gateway, upstream } = await setupKeyed(t, hang, [low, high], {
      admission: { concurrency: 1, queue: 2 },
      // Whatever else has to be told of the gateway here is told without a key.
      metrics_port: 0,
    });
    const ask = async (key: typeof low, n: number) => {
      const response = await chat(gateway, { model: 'm', n }, bearer(key));
      await response.text();
      return response.status;
    };
    const first = ask(low, 1);
    await until(() => upstream.received.length === 1, 'the place is taken');
    const second = ask(low, 2);
    await metricReaches(gateway, DEPTH, 1);
    const third = ask(low, 3);
    await metricReaches(gateway, DEPTH, 2);
    const fourth = ask(high, 4);
    assert.equal(await third, 429);
    assert.equal(await metric(gateway, 'crystalkv_gateway_shed_total{reason="displaced"}'), 1);
    for (let n = 1; n <= 3; n++) {
      await until(() => upstream.received.length === n, `${n} are sent`);
      upstream.received[n - 1]!.response.end('{}');
    }
    assert.deepEqual(await Promise.all([first, second, fourth]), [200, 200, 200]);
    const order = upstream.received.map(({ body }) => (JSON.parse(body.toString()) as { n: number }).n);
    assert.deepEqual(order, [1, 4, 2]);
  });
});
