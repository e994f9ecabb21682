import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { RequestListener } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import OpenAI from 'openai';
import { createFileStore } from '../../gateway/keys/file-store.ts';
import { chat, type ErrorAnswer, metric, metricReaches, setup, startGateway } from '../gateway/harness.ts';
import { createUpstream, hang, json } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';
import { bearer, folder, newKey, setupKeyed, type TestKey } from './harness.ts';
import { NO_REDIS, startRedis } from './redis-server.ts';

const OK = json('{"ok":true}');
const BODY = { model: 'm', messages: [] };
const UP = 'crystalkv_gateway_redis_up';
/** A busy machine must not look like a Redis that is gone. */
const PATIENT = { timeout_ms: 10_000 };
const LOCAL = 'crystalkv_gateway_limit_fallbacks_total{outcome="local"}';

const errorOf = async (response: Response) => ((await response.json()) as ErrorAnswer).error;

/** Gateways with one file of keys, one Redis and one backend. */
async function fleet(t: TestContext, key: TestKey, redis: Record<string, unknown>, count: number, script = OK) {
  const upstream = await createUpstream(script);
  const file = join(folder(t), 'keys.json');
  await createFileStore(file).add(key.entry);
  const started = await Promise.all(
    Array.from({ length: count }, () =>
      startGateway({ backends: [upstream.url], keys: { store: 'file', file }, redis }),
    ),
  );
  t.after(async () => {
    await Promise.all(started.map(({ gateway }) => gateway.close()));
    await upstream.close();
  });
  return { upstream, gateways: started.map(({ gateway }) => gateway), log: started[0]!.log };
}

/** What a client is told that asks before it sends its body. */
async function asked(port: number, secret: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  socket.write(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer ${secret}\r\n` +
      'expect: 100-continue\r\ncontent-length: 50000000\r\n\r\n',
  );
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  return bytes.toString('latin1', 0, 12);
}

describe('a client that asks before it sends its body', () => {
  for (const [where, skip] of [
    ['in memory', false],
    ['in Redis', NO_REDIS],
  ] as const) {
    it(`is told of its limits first, ${where}`, { skip }, async (t) => {
      const key = newKey('limited', { requests_per_minute: 2 });
      const redis = where === 'in Redis' ? { url: (await startRedis(t)).url, ...PATIENT } : {};
      const { gateways, upstream } = await fleet(t, key, redis, 1);
      const { port } = gateways[0]!;
      // To ask is no request.
      for (let i = 0; i < 4; i++) assert.equal(await asked(port, key.secret), 'HTTP/1.1 100');
      for (let i = 0; i < 2; i++) assert.equal((await chat(gateways[0]!, BODY, bearer(key))).status, 200);
      assert.equal(await asked(port, key.secret), 'HTTP/1.1 429');
      assert.equal(upstream.received.length, 2);
    });
  }
});

describe('a request that sets no limit on its output', () => {
  const LISTED = { object: 'list', data: [{ id: 'm', object: 'model', max_model_len: 5000 }] };

  /** Limits of a key with one request running: what is left of the day. */
  async function left(t: TestContext, config: object, listed: object | undefined) {
    const key = newKey('limited', { tokens_per_day: 100_000 });
    const { gateway, upstream } = await setupKeyed(t, hang, [key], config as Record<string, unknown>);
    const [serve] = upstream.server.listeners('request') as RequestListener[];
    upstream.server.removeAllListeners('request').on('request', (request, response) => {
      if (request.url === '/v1/models' && listed !== undefined) response.end(JSON.stringify(listed));
      else serve!(request, response);
    });
    const abort = new AbortController();
    t.after(() => abort.abort());
    chat(gateway, BODY, { ...bearer(key), signal: abort.signal }).catch(() => {});
    const used = 'crystalkv_gateway_limit_used_ratio{key="limited",limit="tokens_per_day"}';
    await until(() => upstream.received.length === 1, 'it runs');
    return Math.round(((await metric(gateway, used)) ?? 0) * 100_000);
  }

  it('reserves the length of its model, as servers would go on to there', async (t) => {
    const reserved = await left(t, {}, LISTED);
    assert.ok(reserved >= 5000 && reserved < 5100, `${reserved}`);
  });

  it('reserves what is configured, and a thousand where nobody tells the length', async (t) => {
    const configured = await left(t, { limits: { reserve_output: 300 } }, LISTED);
    assert.ok(configured >= 300 && configured < 400, `${configured}`);
    const unknown = await left(t, {}, undefined);
    assert.ok(unknown >= 1024 && unknown < 1124, `${unknown}`);
  });
});

describe('limits of a key', () => {
  it('requests in a minute: a 429 with Retry-After and the headers that clients of OpenAI read', async (t) => {
    const key = newKey('limited', { requests_per_minute: 2, tokens_per_minute: 1000 });
    const { gateway, upstream } = await setupKeyed(t, OK, [key]);
    const first = await chat(gateway, BODY, bearer(key));
    assert.equal(first.headers.get('x-ratelimit-limit-requests'), '2');
    assert.equal(first.headers.get('x-ratelimit-remaining-requests'), '1');
    assert.match(first.headers.get('x-ratelimit-reset-requests') ?? '', /^1m\d+s$/);
    assert.equal(first.headers.get('x-ratelimit-limit-tokens'), '1000');
    await first.text();
    await (await chat(gateway, BODY, bearer(key))).text();
    const refused = await chat(gateway, BODY, bearer(key));
    assert.equal(refused.status, 429);
    assert.equal(refused.headers.get('x-ratelimit-remaining-requests'), '0');
    const seconds = Number(refused.headers.get('retry-after'));
    assert.ok(seconds > 50 && seconds <= 65, `${seconds}`);
    const ms = Number(refused.headers.get('retry-after-ms'));
    assert.equal(Math.ceil(ms / 1000), seconds);
    const { type, code, message } = await errorOf(refused);
    assert.deepEqual([type, code], ['gateway_rate_limited', 'rate_limit_exceeded']);
    assert.match(message, /limited to 2 requests per minute$/);
    assert.equal(upstream.received.length, 2);
    assert.equal(
      await metric(gateway, 'crystalkv_gateway_limited_total{key="limited",limit="requests_per_minute"}'),
      1,
    );
  });

  it("is an APIError that OpenAI's client knows", async (t) => {
    const key = newKey('limited', { requests_per_minute: 1 });
    const { gateway } = await setupKeyed(t, OK, [key]);
    const client = (apiKey: string) => new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey, maxRetries: 0 });
    const ask = (apiKey: string) => client(apiKey).chat.completions.create({ model: 'm', messages: [] });
    await ask(key.secret);
    await assert.rejects(
      ask(key.secret),
      (error) => error instanceof OpenAI.RateLimitError && error.code === 'rate_limit_exceeded',
    );
    await assert.rejects(
      ask('wrong'),
      (error) => error instanceof OpenAI.AuthenticationError && error.code === 'invalid_api_key',
    );
  });

  it('requests at the same time: a place is free again when a client leaves', async (t) => {
    const key = newKey('narrow', { concurrent_requests: 1 });
    const { gateway, upstream } = await setupKeyed(t, hang, [key]);
    const leaving = new AbortController();
    const first = chat(gateway, BODY, { ...bearer(key), signal: leaving.signal }).catch(() => undefined);
    await until(() => upstream.received.length === 1, 'the first is at the backend');
    const refused = await chat(gateway, BODY, bearer(key));
    assert.equal(refused.status, 429);
    assert.match((await errorOf(refused)).message, /limited to 1 concurrent request$/);
    leaving.abort();
    await first;
    upstream.script = OK;
    await until(async () => (await chat(gateway, BODY, bearer(key))).status === 200, 'the place is free');
  });

  it('reading models costs nothing, and a key without limits is not asked about', async (t) => {
    const key = newKey('limited', { requests_per_minute: 1 });
    const free = newKey('free');
    const { gateway } = await setupKeyed(t, OK, [key, free]);
    for (let i = 0; i < 3; i++) {
      assert.equal((await fetch(`${gateway.url}/v1/models`, bearer(key))).status, 200);
      const response = await chat(gateway, BODY, bearer(free));
      assert.equal(response.headers.get('x-ratelimit-limit-requests'), null);
    }
    assert.equal((await chat(gateway, BODY, bearer(key))).status, 200);
    assert.equal((await chat(gateway, BODY, bearer(key))).status, 429);
  });
});

describe('gateways on one Redis', { skip: NO_REDIS }, () => {
  it('count together: of many requests at once exactly as many pass as the limit says', async (t) => {
    const key = newKey('shared', { requests_per_minute: 37 });
    const { url } = await startRedis(t);
    const { gateways, upstream } = await fleet(t, key, { url, ...PATIENT }, 2);
    const all = await Promise.all(Array.from({ length: 120 }, (_, i) => chat(gateways[i % 2]!, BODY, bearer(key))));
    const statuses = all.map(({ status }) => status);
    assert.equal(statuses.filter((status) => status === 200).length, 37);
    assert.equal(statuses.filter((status) => status === 429).length, 83);
    assert.equal(upstream.received.length, 37);
  });

  it('hold the number of requests at the same time together', async (t) => {
    const key = newKey('shared', { concurrent_requests: 5 });
    const { url } = await startRedis(t);
    const { gateways, upstream } = await fleet(t, key, { url, ...PATIENT }, 2, hang);
    const all = Array.from({ length: 30 }, (_, i) => chat(gateways[i % 2]!, BODY, bearer(key)));
    const refused: number[] = [];
    for (const one of all) void one.then(({ status }) => refused.push(status));
    await until(() => refused.length === 25 && upstream.received.length === 5, 'five are at the backend, 25 refused');
    for (const { response } of upstream.received) response.end('{}');
    const statuses = (await Promise.all(all)).map(({ status }) => status);
    assert.equal(statuses.filter((status) => status === 200).length, 5);
  });

  it('keep their keys there too, and see a revocation', async (t) => {
    const server = await startRedis(t);
    const key = newKey('stored', { requests_per_minute: 50 });
    const { createRedisStore } = await import('../../gateway/keys/redis-store.ts');
    const store = createRedisStore({ client: server.client(), prefix: 'crystalkv', place: 'redis' });
    await store.add(key.entry);
    const { gateway, log } = await setup(t, OK, { keys: { store: 'redis' }, redis: { url: server.url, ...PATIENT } });
    assert.equal((await chat(gateway, BODY, bearer(key))).status, 200);
    const connections = String(await server.client().client('LIST')).match(/name=crystal-kv-gateway/g);
    assert.equal(connections?.length, 1, 'keys, limits and response ids share a connection');
    await store.remove(key.entry.id);
    await until(async () => (await chat(gateway, BODY, bearer(key))).status === 401, 'the revoked key is refused');
    assert.ok(!JSON.stringify(log).includes(key.secret.slice(17)));
  });
});

describe('Redis in mid-traffic', { skip: NO_REDIS }, () => {
  const key = newKey('busy', { requests_per_minute: 100_000, tokens_per_minute: 1_000_000 });
  const short = { timeout_ms: 2_000 };

  for (const [fault, hit, mend] of [
    ['killed', 'kill', 'start'],
    ['frozen', 'freeze', 'thaw'],
  ] as const) {
    it(`${fault}: every request is answered by local limits, counted, and Redis is used again when it is back`, async (t) => {
      const server = await startRedis(t);
      const { gateways, log } = await fleet(t, key, { url: server.url, ...short }, 1);
      const gateway = gateways[0]!;
      let stop = false;
      const statuses = new Map<number, number>();
      const traffic = Array.from({ length: 4 }, async () => {
        while (!stop) {
          const { status } = await chat(gateway, BODY, bearer(key));
          statuses.set(status, (statuses.get(status) ?? 0) + 1);
        }
      });
      const answered = async (count: number) => {
        const from = statuses.get(200) ?? 0;
        await until(() => (statuses.get(200) ?? 0) >= from + count, `${count} more are answered`);
      };
      await answered(20);
      assert.equal(await metric(gateway, UP), 1);
      await server[hit]();
      await until(async () => (await metric(gateway, UP)) === 0, 'the failure is seen');
      await answered(20);
      assert.ok(((await metric(gateway, LOCAL)) ?? 0) >= 20);
      await server[mend]();
      await until(async () => (await metric(gateway, UP)) === 1, 'redis is back');
      const local = await metric(gateway, LOCAL);
      await answered(20);
      assert.equal(await metric(gateway, LOCAL), local);
      stop = true;
      await Promise.all(traffic);
      assert.deepEqual([...statuses.keys()], [200]);
      const messages = log.map(({ msg }) => msg).filter((msg) => /^redis/.test(String(msg)));
      assert.deepEqual(messages, ['redis does not answer', 'redis answers again']);
    });
  }

  it('limits hold locally while it is gone', async (t) => {
    const server = await startRedis(t);
    const narrow = newKey('narrow', { requests_per_minute: 3 });
    const { gateways } = await fleet(t, narrow, { url: server.url, ...short }, 1);
    await server.kill();
    await until(async () => {
      await chat(gateways[0]!, BODY, bearer(narrow));
      return (await metric(gateways[0]!, UP)) === 0;
    }, 'the failure is seen');
    await until(
      async () => (await chat(gateways[0]!, BODY, bearer(narrow))).status === 429,
      'the local limit is reached',
    );
  });

  it('with on_failure: deny, requests of keys with limits get a 503, others pass', async (t) => {
    const server = await startRedis(t);
    const { gateways } = await fleet(t, key, { url: server.url, on_failure: 'deny', ...short }, 1);
    const gateway = gateways[0]!;
    assert.equal((await chat(gateway, BODY, bearer(key))).status, 200);
    await server.kill();
    const refused = await until(async () => {
      const response = await chat(gateway, BODY, bearer(key));
      return response.status === 503 && response;
    }, 'it is denied');
    assert.equal(refused.headers.get('retry-after'), '1');
    assert.equal((await errorOf(refused)).type, 'gateway_limits_unavailable');
    assert.equal((await fetch(`${gateway.url}/v1/models`, bearer(key))).status, 200);
    await server.start();
    await until(async () => (await chat(gateway, BODY, bearer(key))).status === 200, 'it is admitted again');
    await metricReaches(gateway, UP, 1);
  });
});
