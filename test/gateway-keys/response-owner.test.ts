import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { Gateway } from '../../gateway/gateway.ts';
import { type ErrorAnswer, post, startGateway } from '../gateway/harness.ts';
import { responsesUpstream } from '../gateway/responses-upstream.ts';
import { createUpstream } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';
import { bearer, newKey, setupKeyed, type TestKey } from './harness.ts';
import { NO_REDIS, startRedis } from './redis-server.ts';

const owner = newKey('owner', { models: ['m'] });
const other = newKey('other');
const KEYS = [owner, other];

async function start(t: TestContext, backends: number, config: Record<string, unknown> = {}) {
  const upstreams = await Promise.all(
    ['a', 'b', 'c'].slice(0, backends).map((name) => createUpstream(responsesUpstream(name))),
  );
  t.after(() => Promise.all(upstreams.map((upstream) => upstream.close())));
  const all = { backends: upstreams.map(({ url }) => url), ...config };
  return { upstreams, all, ...(await setupKeyed(t, responsesUpstream('x'), KEYS, all)) };
}

async function make(gateway: Gateway, key: TestKey, body: object = {}): Promise<Response> {
  return await post(gateway, '/v1/responses', { model: 'm', input: 'x', ...body }, bearer(key));
}

async function made(gateway: Gateway, key: TestKey, body: object = {}): Promise<string> {
  return /resp_\w+/.exec(await (await make(gateway, key, body)).text())![0];
}

/** Each way to reach a response. */
const WAYS: ((gateway: Gateway, id: string, key: TestKey) => Promise<Response>)[] = [
  (gateway, id, key) => fetch(`${gateway.url}/v1/responses/${id}`, bearer(key)),
  (gateway, id, key) => post(gateway, `/v1/responses/${id}/cancel`, '', bearer(key)),
  (gateway, id, key) => make(gateway, key, { previous_response_id: id }),
];

async function isHidden(gateway: Gateway, id: string, key: TestKey): Promise<void> {
  for (const way of WAYS) {
    const response = await way(gateway, id, key);
    assert.equal(response.status, 404);
    assert.deepEqual((await response.json()) as ErrorAnswer, {
      error: {
        message: `Response with id '${id}' not found.`,
        type: 'gateway_response_not_found',
        param: null,
        code: 404,
      },
    });
  }
}

async function isReached(gateway: Gateway, id: string, key: TestKey): Promise<void> {
  for (const way of WAYS) assert.equal((await way(gateway, id, key)).status, 200);
}

describe('a response and the key that it was made for', () => {
  for (const backends of [1, 3]) {
    for (const stream of [false, true]) {
      it(`is there for that key only, as if there were none for others (${backends} backends, stream ${stream})`, async (t) => {
        const { gateway, upstreams } = await start(t, backends);
        const id = await made(gateway, owner, { stream });
        await isReached(gateway, id, owner);
        const before = upstreams.map(({ received }) => received.length);
        await isHidden(gateway, id, other);
        await isHidden(gateway, 'resp_none', other);
        await isHidden(gateway, 'not~plain', other);
        assert.deepEqual(
          upstreams.map(({ received }) => received.length),
          before,
        );
        await isReached(gateway, id, owner);
      });
    }
  }

  it('is there for nobody once nobody knows whose it is', async (t) => {
    const { gateway, file, all } = await start(t, 2);
    const id = await made(gateway, owner);
    const { gateway: again } = await startGateway({ ...all, keys: { store: 'file', file } });
    t.after(() => again.close());
    for (const key of KEYS) await isHidden(again, id, key);
  });

  it('has a name that no client chooses, so that none can take the name of another', async (t) => {
    const { gateway, upstreams } = await start(t, 1);
    const response = await make(gateway, other, { request_id: 'resp_a0' });
    assert.equal(response.status, 400);
    assert.match(((await response.json()) as ErrorAnswer).error.message, /request_id is not allowed/);
    assert.equal(upstreams[0]!.received.length, 0);
  });

  it('is not asked about while keys are off', async (t) => {
    const { gateway, upstreams } = await start(t, 1, { keys: { store: 'off' } });
    const id = await made(gateway, owner, { request_id: 'resp_chosen' });
    await isReached(gateway, id, other);
    assert.ok(upstreams[0]!.received[0]!.body.includes('resp_chosen'));
  });

  it('is the same in every gateway on one Redis', { skip: NO_REDIS }, async (t) => {
    const redis = await startRedis(t);
    const { gateway, file, all, upstreams } = await start(t, 2, { redis: { url: redis.url } });
    const { gateway: second } = await startGateway({ ...all, keys: { store: 'file', file } });
    t.after(() => second.close());
    const id = await made(gateway, owner);
    const maker = upstreams['ab'.indexOf(id.at('resp_'.length)!)]!.url;
    const client = redis.client();
    const stored = () => client.get(`crystalkv:response:${id}`);
    await until(async () => (await stored()) === `${owner.entry.id} ${maker}`, 'it is in Redis');
    const status = async () => (await WAYS[0]!(second, id, other)).status;
    await until(async () => (await status()) === 404, 'the second is connected');
    await isHidden(second, id, other);
    await isReached(second, id, owner);
    await isHidden(second, id, other);
  });

  it('is a 503 while Redis, which may know, cannot be asked', { skip: NO_REDIS }, async (t) => {
    const redis = await startRedis(t);
    const { gateway } = await start(t, 1, { redis: { url: redis.url } });
    const id = await made(gateway, owner);
    await redis.kill();
    await isReached(gateway, id, owner);
    await isHidden(gateway, id, other);
    for (const way of WAYS) {
      const response = await way(gateway, 'resp_elsewhere', owner);
      assert.equal(response.status, 503);
      assert.equal(response.headers.get('retry-after'), '1');
      assert.equal(((await response.json()) as ErrorAnswer).error.type, 'gateway_responses_unavailable');
    }
  });

  it('stays in Redis with the key that it is of', { skip: NO_REDIS }, async (t) => {
    const redis = await startRedis(t);
    const { gateway, upstreams } = await start(t, 1, { redis: { url: redis.url } });
    const client = redis.client();
    const before = `${other.entry.id} ${upstreams[0]!.url}`;
    await client.set('crystalkv:response:resp_a0', before);
    assert.equal(await made(gateway, owner), 'resp_a0');
    assert.equal(await made(gateway, owner), 'resp_a1');
    await until(async () => (await client.get('crystalkv:response:resp_a1')) !== null, 'the next is in Redis');
    assert.equal(await client.get('crystalkv:response:resp_a0'), before);
  });
});
