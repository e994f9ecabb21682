import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { describe, it, type TestContext } from 'node:test';
import { ROUTES } from '../../gateway/routes.ts';
import { chat, type ErrorAnswer, metric, post, startGateway } from '../gateway/harness.ts';
import { createUpstream, json, rawClient } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';
import { bearer, newKey, setupKeyed, type TestKey } from './harness.ts';

const OK = json('{"ok":true}');
const BODY = { model: 'm', messages: [] };
const key = newKey('team-a');

async function errorOf(response: Response): Promise<ErrorAnswer['error']> {
  return ((await response.json()) as ErrorAnswer).error;
}

async function upstreamOf(t: TestContext) {
  const upstream = await createUpstream(OK);
  t.after(() => upstream.close());
  return upstream;
}

describe('with keys on', () => {
  it('a request without a key gets a 401 in the shape that clients of OpenAI know, and reaches no backend', async (t) => {
    const { gateway, upstream } = await setupKeyed(t, OK, [key]);
    const response = await chat(gateway);
    assert.equal(response.status, 401);
    assert.equal(response.headers.get('www-authenticate'), 'Bearer');
    const { type, code, message } = await errorOf(response);
    assert.deepEqual([type, code], ['gateway_invalid_api_key', 'invalid_api_key']);
    assert.match(message, /an API key is required/);
    assert.equal(upstream.received.length, 0);
  });

  it('every path asks for the key but those that hold no secret', async (t) => {
    const { gateway, upstream } = await setupKeyed(t, OK, [key]);
    const statusOf = async (method: string, path: string, headers: Record<string, string> = {}) =>
      (await fetch(`${gateway.url}${path}`, { method, headers, ...(method === 'POST' && { body: '{}' }) })).status;
    for (const { method, path } of ROUTES) {
      for (const own of [path, `${path}?api_key=${key.secret}`]) {
        assert.equal(await statusOf(method, own.replace(':id', 'resp_1')), 401, `${method} ${own}`);
      }
    }
    for (const path of ['/ui/api/setup', '/ui/api/events', `/ui/api/events?key=${key.secret}`]) {
      assert.equal(await statusOf('GET', path), 401, path);
    }
    for (const path of ['/health', '/ready', '/openapi.json', '/ui']) assert.equal(await statusOf('GET', path), 200);
    assert.equal(await statusOf('GET', '/v1/nothing'), 404);
    assert.equal(upstream.received.length, 0);
  });

  it('nothing but the two headers is a key, and no spelling of a path goes past it', async (t) => {
    const { gateway, upstream } = await setupKeyed(t, OK, [key]);
    const { secret } = key;
    const path = '/v1/chat/completions';
    const attempts: [line: string, header: string, status: number][] = [
      [`POST ${path}`, `Authorization: Basic ${Buffer.from(`x:${secret}`).toString('base64')}`, 401],
      [`POST ${path}`, `Authorization: ${secret}`, 401],
      [`POST ${path}`, `Cookie: api_key=${secret}`, 401],
      [`POST ${path}`, `Authorization: Bearer bad\r\nAuthorization: Bearer ${secret}`, 401],
      [`POST ${path}`, `x-api-key: bad\r\nx-api-key: ${secret}`, 401],
      [`POST ${path}`, 'x-api-key: __proto__', 401],
      [`POST ${path}`, 'X-Forwarded-For: 127.0.0.1', 401],
      ['GET /v1/models', 'X-HTTP-Method-Override: POST', 401],
      [`POST http://${new URL(gateway.url).host}${path}`, 'x: y', 401],
      ['POST //v1/chat/completions', 'x: y', 404],
      ['POST /health/../v1/chat/completions', 'x: y', 404],
      ['POST /v1/%63hat/completions', 'x: y', 404],
      ['GET /ui/api%2fevents', 'x: y', 404],
    ];
    for (const [line, header, status] of attempts) {
      const client = await rawClient(gateway.port);
      client.write(`${line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n${header}\r\nContent-Length: 2\r\n\r\n{}`);
      await until(() => client.closed(), 'the answer is complete');
      assert.match(client.text(), new RegExp(`^HTTP/1\\.1 ${status} `), `${line} ${header}`);
    }
    assert.equal(upstream.received.length, 0);
  });

  it('a wrong key is refused, whatever of it is right', async (t) => {
    const { gateway } = await setupKeyed(t, OK, [key]);
    const other = newKey('other').secret;
    const sameId = `${key.secret.slice(0, 17)}${other.slice(17)}`;
    for (const secret of ['sk-1', other, sameId, key.secret.slice(0, -1), `${key.secret}A`]) {
      const response = await chat(gateway, BODY, { headers: { authorization: `Bearer ${secret}` } });
      assert.equal(response.status, 401);
      const { message } = await errorOf(response);
      assert.match(message, /not valid/);
      assert.ok(!message.includes(secret));
    }
  });

  it('the key is taken as bearer or as x-api-key, and no backend sees it', async (t) => {
    const { gateway, upstream } = await setupKeyed(t, OK, [key]);
    for (const headers of [
      { authorization: `Bearer ${key.secret}` },
      { authorization: `bearer ${key.secret}` },
      { 'x-api-key': key.secret },
    ]) {
      assert.equal((await post(gateway, '/v1/messages', BODY, { headers })).status, 200);
    }
    assert.equal(upstream.received.length, 3);
    for (const { rawHeaders } of upstream.received) {
      assert.ok(!rawHeaders.join().includes(key.secret));
      assert.ok(!rawHeaders.some((name) => /^(authorization|x-api-key)$/i.test(name)));
    }
  });

  it("the backend gets its own credential in the key's place", async (t) => {
    const upstream = await upstreamOf(t);
    const { gateway } = await setupKeyed(t, OK, [key], { backends: [{ url: upstream.url, apiKey: 'backend-secret' }] });
    assert.equal((await chat(gateway, BODY, bearer(key))).status, 200);
    assert.equal(upstream.received.at(-1)?.headers.authorization, 'Bearer backend-secret');
  });

  it('a key that is added works, and one that is revoked stops working, while the gateway runs', async (t) => {
    const { gateway, store } = await setupKeyed(t, OK, []);
    const status = async () => (await chat(gateway, BODY, bearer(key))).status;
    assert.equal(await status(), 401);
    await store.add(key.entry);
    await until(async () => (await status()) === 200, 'the new key works');
    await store.remove('team-a');
    await until(async () => (await status()) === 401, 'the revoked key is refused');
  });

  it('the keys that were read last stay good while the file is broken, which is counted and logged once', async (t) => {
    const { gateway, file, log } = await setupKeyed(t, OK, [key]);
    writeFileSync(file, '{');
    await until(
      async () => ((await metric(gateway, 'crystalkv_gateway_key_store_failures_total')) ?? 0) >= 2,
      'two reads have failed',
    );
    assert.equal((await chat(gateway, BODY, bearer(key))).status, 200);
    assert.equal(log.filter(({ msg }) => msg === 'cannot load the API keys; the last ones stay valid').length, 1);
  });

  it('no key, and no credential of a backend, is in logs or metrics; the name of the key is', async (t) => {
    const upstream = await upstreamOf(t);
    const { gateway, log } = await setupKeyed(t, OK, [key], {
      backends: [{ url: upstream.url, apiKey: 'backend-secret' }],
    });
    await chat(gateway, BODY, bearer(key));
    await chat(gateway, BODY, { headers: { authorization: 'Bearer wrong-secret-123' } });
    await until(() => log.some((line) => line['msg'] === 'request' && line['key'] === 'team-a'), 'it is logged');
    const text = JSON.stringify(log) + (await (await fetch(gateway.metricsUrl)).text());
    for (const secret of [key.secret.slice(17), key.entry.sha256, 'backend-secret', 'wrong-secret-123']) {
      assert.ok(!text.includes(secret));
    }
  });
});

describe('with keys off', () => {
  it("the configured credential goes before a client's, which goes where none is configured", async (t) => {
    const upstream = await upstreamOf(t);
    const { gateway } = await startGateway({ backends: [{ url: upstream.url, apiKey: 'backend-secret' }] });
    t.after(() => gateway.close());
    await chat(gateway, BODY, { headers: { authorization: 'Bearer client-own' } });
    assert.equal(upstream.received.at(-1)?.headers.authorization, 'Bearer backend-secret');
    await chat(gateway, BODY);
    assert.equal(upstream.received.at(-1)?.headers.authorization, 'Bearer backend-secret');
    const open = await startGateway({ backends: [{ url: upstream.url }] });
    t.after(() => open.gateway.close());
    await chat(open.gateway, BODY, { headers: { authorization: 'Bearer client-own' } });
    assert.equal(upstream.received.at(-1)?.headers.authorization, 'Bearer client-own');
  });
});

describe('models of a key', () => {
  const limited = newKey('limited', { models: ['small', 'tiny'] });

  it('are allowed, and others get a 403 that names them', async (t) => {
    const { gateway, upstream } = await setupKeyed(t, OK, [limited]);
    assert.equal((await chat(gateway, { model: 'tiny' }, bearer(limited))).status, 200);
    const response = await chat(gateway, { model: 'large' }, bearer(limited));
    assert.equal(response.status, 403);
    const { code, message, param } = await errorOf(response);
    assert.deepEqual([code, param], ['model_not_allowed', 'model']);
    assert.match(message, /may not use the model "large"; it may use small, tiny/);
    assert.equal(upstream.received.length, 1);
  });

  it('hold on every path with a body, also where it is passed on as it is, and for one without a model', async (t) => {
    const { gateway } = await setupKeyed(t, OK, [limited]);
    for (const path of ['/v1/completions', '/v1/responses', '/v1/messages', '/v1/messages/count_tokens', '/tokenize']) {
      for (const [body, status] of [
        ['{"model":"large"}', 403],
        ['{}', 403],
        ['{"model":"small","model":"large"}', 403],
        ['{"model":"small"}', 200],
      ] as const) {
        assert.equal((await post(gateway, path, body, bearer(limited))).status, status, `${path} ${body}`);
      }
    }
  });
});

describe('cache options of a key', () => {
  const bounds = { profiles: ['tight'], modes: ['shadow', 'off'], budget_tokens_min: 64, budget_tokens_max: 128 };
  const bounded = newKey('bounded', bounds);

  const send = async (t: TestContext, crystal_kv: unknown, who: TestKey = bounded) => {
    const { gateway, upstream } = await setupKeyed(t, OK, [who], {}, ['default', 'tight']);
    const body = { ...BODY, ...(crystal_kv === undefined ? {} : { crystal_kv }) };
    const response = await chat(gateway, body, bearer(who));
    const text = upstream.received[0]?.body.toString() ?? '{}';
    return { response, xargs: (JSON.parse(text) as { vllm_xargs?: Record<string, unknown> }).vllm_xargs ?? {} };
  };

  for (const [option, pattern] of [
    [{ budget_tokens: 63 }, /crystal_kv\.budget_tokens is 63: must be an integer from 64 to 128/],
    [{ budget_tokens: 129 }, /from 64 to 128/],
    [{ profile: 'default' }, /crystal_kv\.profile is "default": must be one of tight/],
    [{ mode: 'enforce' }, /crystal_kv\.mode is "enforce": must be one of shadow, off/],
  ] as const) {
    it(`${JSON.stringify(option)} is refused with the key's bounds`, async (t) => {
      const { response } = await send(t, option);
      assert.equal(response.status, 400);
      assert.match((await errorOf(response)).message, pattern);
    });
  }

  it('what is inside the bounds passes', async (t) => {
    const { xargs } = await send(t, { budget_tokens: 64, profile: 'tight', mode: 'off' });
    const { crystalkv_budget_tokens, crystalkv_profile, crystalkv_mode } = xargs;
    assert.deepEqual([crystalkv_budget_tokens, crystalkv_profile, crystalkv_mode], [64, 'tight', 'off']);
  });

  it("a request that asks for nothing gets the first of the key's, where the key leaves the default out", async (t) => {
    const { xargs } = await send(t, undefined);
    assert.deepEqual([xargs['crystalkv_profile'], xargs['crystalkv_mode']], ['tight', 'shadow']);
    const { xargs: free } = await send(t, undefined, newKey('free'));
    assert.deepEqual([free['crystalkv_profile'], free['crystalkv_mode']], [undefined, undefined]);
  });
});

describe('/metrics on the listener of the API, with keys on', () => {
  it('is there for this machine, and behind a proxy for those with a key', async (t) => {
    const { gateway } = await setupKeyed(t, OK, [key]);
    const status = (headers: Record<string, string>) =>
      new Promise<number | undefined>((resolve, reject) => {
        httpRequest(`${gateway.url}/metrics`, { headers }, (response) => resolve(response.resume().statusCode))
          .on('error', reject)
          .end();
      });
    assert.equal(await status({}), 200);
    assert.equal(await status({ 'x-forwarded-for': '203.0.113.9' }), 401);
    assert.equal(await status({ forwarded: 'for=203.0.113.9', authorization: `Bearer ${key.secret}` }), 200);
  });
});
