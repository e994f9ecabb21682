import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Registry } from 'prom-client';
import { createBackendSeries } from '../../gateway/observe/backend-series.ts';
import { createMetrics } from '../../gateway/observe/metrics.ts';
import { parseMetrics } from '../../scripts/metrics/text.ts';
import { chat, metricReaches, setup } from './harness.ts';
import { json } from './upstream.ts';

const NAME = 'crystalkv_gateway_backend_requests_total';

function start() {
  const registry = new Registry();
  const read = async () => parseMetrics(await registry.metrics());
  return {
    series: createBackendSeries(createMetrics(registry)),
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
  test('are counted by their model', async () => {
    const { series, counts } = start();
    series.ended('a', 'other', 'client_error', 1);
    series.ended('a', 'real', 'client_error', 1);
    series.ended('a', 'real', 'ok', 1);
    series.ended('b', 'other', 'ok', 1);
    assert.deepEqual(await counts(), {
      'a other client_error': 1,
      'a real client_error': 1,
      'a real ok': 1,
      'b other ok': 1,
    });
  });

  test('go by one name where the client invented the model', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    await (await chat(gateway, { model: 'invented', messages: [] })).text();
    await metricReaches(gateway, `${NAME}{backend="${upstream.url}",model="other",outcome="ok"}`, 1);
  });

  test('a backend that has gone takes its series along', async () => {
    const { series, counts, read } = start();
    series.ended('a', 'm', 'ok', 1);
    series.ended('a', 'm', 'broken', 1);
    series.ended('b', 'm', 'ok', 1);
    series.forget('a');
    series.forget('never seen');
    assert.deepEqual(await counts(), { 'b m ok': 1 });
    assert.ok((await read()).every(({ labels }) => labels['backend'] !== 'a'));
  });
});
