import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Registry } from 'prom-client';
import { createTraffic } from '../../gateway/observe/traffic.ts';
import { parseMetrics } from '../../scripts/metrics/text.ts';

const NAME = 'crystalkv_gateway_backend_requests_total';

function start() {
  const registry = new Registry();
  const read = async () => parseMetrics(await registry.metrics());
  return {
    traffic: createTraffic(registry, [1], (model) => (model === 'invented' ? 'other' : (model ?? 'other'))),
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
  test('are counted under the label of their model', async () => {
    const { traffic, counts } = start();
    traffic.ended('a', 'invented', 'client_error', 1);
    traffic.ended('a', 'real', 'client_error', 1);
    traffic.ended('a', 'real', 'ok', 1);
    traffic.ended('b', undefined, 'ok', 1);
    assert.deepEqual(await counts(), {
      'a other client_error': 1,
      'a real client_error': 1,
      'a real ok': 1,
      'b other ok': 1,
    });
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
