import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { setup, startGateway } from './harness.ts';
import { createUpstream, json, refusedUrl } from './upstream.ts';

describe('readiness', () => {
  it('is there while one backend of several answers', async (t) => {
    const upstream = await createUpstream(json('{}'));
    const { gateway } = await startGateway({ backends: [await refusedUrl(), upstream.url] });
    t.after(() => Promise.all([gateway.close(), upstream.close()]));
    const response = await fetch(`${gateway.url}/ready`);
    assert.equal(response.status, 200);
    assert.deepEqual(await response.json(), { status: 'ready', backends: { up: 1, total: 2 } });
  });

  it('goes with the last backend and comes back with it; health stays', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const status = async () => (await fetch(`${gateway.url}/ready`)).status;
    assert.equal(await status(), 200);
    await upstream.close();
    await until(async () => (await status()) === 503, 'not ready');
    assert.equal((await fetch(`${gateway.url}/health`)).status, 200);
    const again = await createUpstream(json('{}'), upstream.port);
    t.after(() => again.close());
    await until(async () => (await status()) === 200, 'ready again');
  });
});

describe('metrics', () => {
  it('have a listener of their own where a port is configured', async (t) => {
    const { gateway } = await setup(t, json('{}'), { metrics_port: 0 });
    assert.notEqual(new URL(gateway.metricsUrl).port, String(gateway.port));
    assert.match(await (await fetch(gateway.metricsUrl)).text(), /crystalkv_gateway_inflight 0/);
    assert.equal((await fetch(`${gateway.url}/metrics`)).status, 404);
  });

  it('start at 0 for what can be counted', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const text = await (await fetch(gateway.metricsUrl)).text();
    for (const series of [
      'requests_total{route="/v1/chat/completions",status="200",outcome="ok"}',
      'client_aborts_total{stage="waiting"}',
      `upstream_errors_total{backend="${upstream.url}",reason="connect"}`,
      'broken_streams_total{route="/v1/chat/completions",end="told"}',
    ]) {
      assert.ok(text.includes(`crystalkv_gateway_${series} 0`), series);
    }
  });

  it('count requests and measure them by route', async (t) => {
    const { gateway } = await setup(t, json('{}'));
    await fetch(`${gateway.url}/v1/models/some-name`);
    const text = await until(async () => {
      const now = await (await fetch(gateway.metricsUrl)).text();
      return now.includes('requests_total{route="/v1/models/:id",status="200",outcome="ok"} 1') && now;
    }, 'the request is counted');
    assert.match(text, /crystalkv_gateway_request_seconds_count\{route="\/v1\/models\/:id"\} 1/);
    assert.match(text, /crystalkv_gateway_first_byte_seconds_count\{route="\/v1\/models\/:id"\} 1/);
    assert.ok(!text.includes('some-name'));
  });
});
