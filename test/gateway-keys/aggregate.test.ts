import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AggregatorRegistry } from 'prom-client';
import type { Gateway } from '../../gateway/gateway.ts';
import { chat, startGateway } from '../gateway/harness.ts';
import { json } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';
import { bearer, newKey, setupKeyed } from './harness.ts';
import { NO_REDIS, startRedis } from './redis-server.ts';

/** The series of two processes as the parent of workers adds them up. */
async function together(gateways: readonly Gateway[]) {
  const apart = await Promise.all(gateways.map(({ registry }) => registry.getMetricsAsJSON()));
  const text = await AggregatorRegistry.aggregate(apart).metrics();
  const series = (name: string) => {
    const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `));
    return line === undefined ? undefined : Number(line.slice(name.length + 1));
  };
  const values = (name: string) =>
    apart.flatMap((metrics) => metrics.filter((metric) => metric.name === name).map(({ values: [one] }) => one!.value));
  return { series, values };
}

describe('gauges of several workers', () => {
  it('shares, states and delays are not added up; what is counted is', { skip: NO_REDIS }, async (t) => {
    const redis = await startRedis(t);
    const key = newKey('team', { requests_per_minute: 4 });
    const config = { redis: { url: redis.url } };
    const { gateway, upstream, file } = await setupKeyed(t, json('{}'), [key], config);
    const { gateway: second } = await startGateway({
      ...config,
      backends: [upstream.url],
      keys: { store: 'file', file },
    });
    t.after(() => second.close());
    const both = [gateway, second];
    for (const one of both) assert.equal((await chat(one, undefined, bearer(key))).status, 200);

    const { series, values } = await together(both);
    const used = 'crystalkv_gateway_limit_used_ratio{key="team",limit="requests_per_minute"}';
    assert.equal(series(used), 0.5);
    assert.equal(series('crystalkv_gateway_redis_up'), 1);
    const delay = 'crystalkv_gateway_event_loop_delay_seconds';
    assert.equal(series(delay), Math.max(...values(delay)));
    const ok = 'crystalkv_gateway_requests_total{route="/v1/chat/completions",status="200",outcome="ok"}';
    await until(async () => (await together(both)).series(ok) === 2, 'requests are added up');

    await redis.kill();
    for (const one of both) assert.equal((await chat(one, undefined, bearer(key))).status, 200);
    assert.equal((await together(both)).series('crystalkv_gateway_redis_up'), 0);
  });
});
