import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Registry } from 'prom-client';
import { parseMetrics } from '../../bench/metrics-text.ts';
import { createTraffic } from '../../gateway/fleet/traffic.ts';

const NAME = 'crystalkv_gateway_backend_requests_total';

function start() {
  const registry = new Registry();
  const read = async () => parseMetrics(await registry.metrics());
  return {
    traffic: createTraffic(registry, [1]),
    read,
    async counts(): Promise<Record<string, number>> {
      const samples = (await read()).filter(({ name, value }) => name === NAME && value > 0);
      return Object.fromEntries(
        samples.map(({ labels, value }) => [`${labels['backend']} ${labels['model']} ${labels['outcome']}`, value]),
      );
    },
  };
}

suite('requests by backend and model', () => {
  test('a model is a label once a backend has answered for it', async () => {
    const { traffic, counts } = start();
    traffic.ended('a', 'invented', 'client_error', 1);
    traffic.ended('a', 'real', 'client_error', 1);
    traffic.ended('a', 'real', 'ok', 1);
    traffic.ended('b', 'real', 'server_error', 1);
    traffic.ended('b', undefined, 'ok', 1);
    assert.deepEqual(await counts(), {
      'a other client_error': 2,
      'a real ok': 1,
      'b real server_error': 1,
      'b other ok': 1,
    });
  });

  test('a server that answers to any name makes no unbounded number of series', async () => {
    const { traffic, counts } = start();
    for (let i = 0; i < 1000; i += 1) traffic.ended('a', `name-${i}`, 'ok', 1);
    traffic.ended('a', 'x'.repeat(1000), 'ok', 1);
    const found = await counts();
    assert.equal(Object.keys(found).length, 65);
    assert.equal(found['a other ok'], 1001 - 64);
  });

  test('a backend that has gone takes its series along', async () => {
    const { traffic, counts, read } = start();
    traffic.ended('a', 'm', 'ok', 1);
    traffic.ended('a', 'm', 'broken', 1);
    traffic.ended('b', 'm', 'ok', 1);
    traffic.forget('a');
    traffic.forget('never seen');
    assert.deepEqual(await counts(), { 'b m ok': 1 });
    assert.ok((await read()).every(({ labels }) => labels['backend'] !== 'a'));
  });
});
