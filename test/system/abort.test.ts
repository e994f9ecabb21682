import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { makeProgram } from '../../model/task.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { CONFIG, metric, metricReaches } from './harness.ts';

const CLIENTS = 8;

describe('a client that leaves through the gateway', () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await startCluster({ config: CONFIG });
  });
  after(() => cluster?.close());

  test('frees the engine at once', async () => {
    const controllers = Array.from({ length: CLIENTS }, () => new AbortController());
    const bodies = await Promise.all(
      controllers.map(async ({ signal }, seed) => {
        const response = await fetch(`${cluster.gatewayUrl}/v1/chat/completions`, {
          method: 'POST',
          signal,
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({
            model: 'crystal-mini',
            messages: [{ role: 'user', content: makeProgram(seed, 12).prompt }],
            max_tokens: 1800,
            ignore_eos: true,
            stream: true,
          }),
        });
        assert.equal(response.status, 200);
        const reader = (response.body as ReadableStream<Uint8Array>).getReader();
        await reader.read();
        return reader;
      }),
    );
    assert.ok((await metric(cluster.engineUrl, 'vllm:num_requests_running')) > 0, 'nothing runs before the abort');
    for (const controller of controllers) controller.abort();
    await Promise.allSettled(bodies.map((reader) => reader.closed));
    await metricReaches(cluster.engineUrl, 'vllm:num_requests_running', (value) => value === 0);
    await metricReaches(cluster.engineUrl, 'vllm:kv_cache_usage_perc', (value) => value === 0);
    // They were ended, they did not end.
    await metricReaches(cluster.engineUrl, 'vllm:request_success_total', (value) => value === CLIENTS, {
      finished_reason: 'abort',
    });
  });
});
