import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createRedisResponseIds } from '../../gateway/fleet/redis-response-ids.ts';
import { createResponseIds } from '../../gateway/fleet/response-ids.ts';
import { openRedis } from '../../gateway/redis.ts';
import { fleet } from '../gateway/fleet-harness.ts';
import { metric, post, startGateway } from '../gateway/harness.ts';
import { json } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';
import { NO_REDIS, startRedis } from './redis-server.ts';

describe('responses that several gateways know', { skip: NO_REDIS }, () => {
  it('reach their backend without being asked for elsewhere', async (t) => {
    const redis = await startRedis(t);
    const made = (name: string) => json(`{"id":"resp_${name}","from":"${name}"}`);
    const { gateway, upstreams, counts } = await fleet(t, [made('a'), made('b')], { redis: { url: redis.url } });
    const other = await startGateway({ backends: upstreams.map(({ url }) => url), redis: { url: redis.url } });
    t.after(() => other.gateway.close());
    const { id, from } = (await (await post(gateway, '/v1/responses', { model: 'm' })).json()) as Record<
      string,
      string
    >;
    const maker = upstreams['ab'.indexOf(from!)]!;
    const client = redis.client();
    await until(async () => (await client.get(`crystalkv:response:${id}`)) === maker.url, 'it is in Redis');
    const seconds = await client.ttl(`crystalkv:response:${id}`);
    assert.ok(seconds > 86_000 && seconds <= 86_400, `expires in ${seconds} s`);
    const got = await fetch(`${other.gateway.url}/v1/responses/${id}`);
    assert.equal(((await got.json()) as { from: string }).from, from);
    assert.equal(maker.received.length, 2);
    assert.equal(counts()[0]! + counts()[1]!, 2);
  });

  it('are remembered by each gateway itself while Redis is gone, which is counted', async (t) => {
    const redis = await startRedis(t);
    const { gateway } = await fleet(t, [json('{"id":"resp_a"}'), json('{"id":"resp_a"}')], {
      redis: { url: redis.url },
    });
    await redis.kill();
    await (await post(gateway, '/v1/responses', { model: 'm' })).text();
    await until(
      async () => ((await metric(gateway, 'crystalkv_gateway_response_id_failures_total')) ?? 0) > 0,
      'it is counted',
    );
    assert.equal((await fetch(`${gateway.url}/v1/responses/resp_a`)).status, 200);
  });

  it('a Redis that hangs holds up nobody for long', async (t) => {
    const redis = await startRedis(t);
    const link = openRedis({ url: redis.url, prefix: 'p', timeout_ms: 100, on_failure: 'local' })!;
    t.after(() => link.close());
    let failures = 0;
    const settings = () => ({ remember_s: 60, remember_max: 10 });
    const ids = createRedisResponseIds({
      redis: link,
      local: createResponseIds(settings),
      settings,
      onFailure: () => failures++,
    });
    await link.reached(20_000);
    redis.freeze();
    assert.equal(await ids.find('resp_x'), 'unasked');
    const made = { backend: 'http://a', key: undefined };
    ids.remember('resp_x', made);
    assert.equal(await ids.find('resp_x'), made);
    await until(() => failures === 2, 'both are counted');
    redis.thaw();
  });
});
