import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { chat, post, setup, startGateway } from './harness.ts';
import { json, rawClient, stream } from './upstream.ts';

describe('checklist 3: absent, null, empty, unknown fields and numbers survive both ways', () => {
  const REQUEST =
    '{ "model" : "m", "seed":9007199254740993,"stop":null,"tools":[],"top_p":1.0, "x_unknown":{"a":1e2,"b":"\\u00e9é"}}';
  const RESPONSE = '{"id":"x", "n":9007199254740993 ,"logprob":-0.10,"reasoning":null,"e":"","u":{"z":[ ]}}\n';

  it('in bodies of generation routes, apart from the keys that are put in', async (t) => {
    const { gateway, upstream } = await setup(t, json(RESPONSE));
    const response = await chat(gateway, REQUEST);
    assert.equal(await response.text(), RESPONSE);
    const sent = upstream.received[0]!.body.toString();
    assert.match(sent, /^\{"vllm_xargs":\{"crystalkv_id":"ckv-[0-9a-f-]{36}"\}, /);
    assert.equal(sent.replace(/"vllm_xargs":\{[^}]*\},/, ''), REQUEST);
  });

  it('in bodies of other routes, to the byte', async (t) => {
    const { gateway, upstream } = await setup(t, json(RESPONSE));
    for (const path of ['/tokenize', '/detokenize']) await (await post(gateway, path, `${REQUEST}, {not json`)).text();
    await (await post(gateway, '/v1/messages/count_tokens', REQUEST)).text();
    assert.deepEqual(
      upstream.received.map(({ body }) => body.toString()),
      [`${REQUEST}, {not json`, `${REQUEST}, {not json`, REQUEST],
    );
  });

  it('in queries and in names of models', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    await fetch(`${gateway.url}/v1/models/org%2Fname?a=%20b&c`);
    assert.equal(upstream.received[0]!.url, '/v1/models/org%2Fname?a=%20b&c');
  });

  it('behind a backend address with a path of its own', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const other = await startGateway({ backends: [`${upstream.url}/base/`] });
    t.after(() => other.gateway.close());
    await chat(other.gateway);
    await chat(gateway);
    assert.deepEqual(
      upstream.received.map(({ url }) => url),
      ['/base/v1/chat/completions', '/v1/chat/completions'],
    );
  });
});

describe('checklist 4: tool-call deltas', () => {
  it('keep order, index and id, and parallel calls are not merged', async (t) => {
    const deltas = [
      { index: 0, id: 'call_1', function: { name: 'a', arguments: '' } },
      { index: 1, id: 'call_2', function: { name: 'b', arguments: '' } },
      { index: 1, function: { arguments: '{"x"' } },
      { index: 0, function: { arguments: '{}' } },
      { index: 1, function: { arguments: ':1}' } },
    ];
    const events = deltas.map(
      (delta) => `data: ${JSON.stringify({ choices: [{ delta: { tool_calls: [delta] } }] })}\n\n`,
    );
    const { gateway } = await setup(t, stream([...events, 'data: [DONE]\n\n']));
    assert.equal(await (await chat(gateway)).text(), `${events.join('')}data: [DONE]\n\n`);
  });
});

describe('checklist 5: errors of the backend survive, unwrapped', () => {
  for (const status of [400, 401, 404, 422, 429, 500, 503]) {
    it(`${status} with its body and Retry-After`, async (t) => {
      const body = `{"error":{"message":"no","type":"Its own","param":null,"code":${status}} }`;
      const { gateway } = await setup(t, json(body, status, { 'Retry-After': '7', 'x-other': 'y' }));
      const response = await chat(gateway, { stream: true });
      assert.equal(response.status, status);
      assert.equal(await response.text(), body);
      assert.equal(response.headers.get('retry-after'), '7');
      assert.equal(response.headers.get('x-other'), 'y');
    });
  }
});

describe('checklist 9: headers', () => {
  it('hop-by-hop headers go both ways, with those that Connection names', async (t) => {
    const { gateway, upstream } = await setup(
      t,
      json('{}', 200, { connection: 'keep-alive, x-hop', 'x-hop': '1', 'proxy-authenticate': 'Basic', 'x-stays': '1' }),
    );
    const client = await rawClient(gateway.port);
    client.write(
      'POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\n' +
        'Proxy-Authorization: Basic x\r\nKeep-Alive: timeout=1\r\nX-Stays: 1\r\nContent-Length: 2\r\n\r\n{}',
    );
    await until(() => client.closed(), 'the response is complete');
    const sent = upstream.received[0]!.headers;
    for (const name of ['x-mine', 'te', 'proxy-authorization', 'keep-alive', 'transfer-encoding']) {
      assert.equal(sent[name], undefined, name);
    }
    assert.equal(sent['x-stays'], '1');
    const head = client.text().toLowerCase();
    for (const name of ['x-hop', 'proxy-authenticate']) assert.ok(!head.includes(name), name);
    assert.ok(head.includes('x-stays: 1'));
  });

  it('Authorization, traceparent and what is not known pass', async (t) => {
    const { gateway, upstream, log } = await setup(t, json('{}'));
    const headers = {
      authorization: 'Bearer secret-key',
      traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
      'x-unknown': 'ü',
    };
    await chat(gateway, { messages: [{ role: 'user', content: 'secret-prompt' }] }, { headers });
    const sent = upstream.received[0]!.headers;
    assert.equal(sent.authorization, headers.authorization);
    assert.equal(sent['traceparent'], headers.traceparent);
    assert.equal(sent['x-unknown'], headers['x-unknown']);
    assert.equal(sent.host, new URL(upstream.url).host);
    await until(() => log.some((line) => line['msg'] === 'request'), 'the request is logged');
    const metrics = await (await fetch(gateway.metricsUrl)).text();
    assert.ok(!`${JSON.stringify(log)}${metrics}`.includes('secret'));
  });

  it('several headers of one name stay several', async (t) => {
    const { gateway } = await setup(t, json('{}', 200, { 'set-cookie': ['a=1', 'b=2'] }));
    assert.deepEqual((await chat(gateway)).headers.getSetCookie(), ['a=1', 'b=2']);
  });
});

describe('request ids', () => {
  it('a short plain X-Request-Id is sent on, returned and logged', async (t) => {
    const { gateway, upstream, log } = await setup(t, json('{}', 200, { 'x-request-id': 'the-backends' }));
    const response = await chat(gateway, {}, { headers: { 'x-request-id': 'abc.1_2:3-4' } });
    assert.equal(response.headers.get('x-request-id'), 'abc.1_2:3-4');
    assert.equal(upstream.received[0]!.headers['x-request-id'], 'abc.1_2:3-4');
    const line = await until(() => log.find((entry) => entry['msg'] === 'request'), 'the request is logged');
    assert.equal(line['request_id'], 'abc.1_2:3-4');
    assert.equal(line['crystalkv_id'], response.headers.get('x-crystalkv-id'));
  });

  for (const bad of ['a'.repeat(129), 'a b', 'a"b', '{}']) {
    it(`another is made instead of ${bad.slice(0, 10)}`, async (t) => {
      const { gateway, upstream } = await setup(t, json('{}'));
      const response = await chat(gateway, {}, { headers: { 'x-request-id': bad } });
      const id = response.headers.get('x-request-id');
      assert.match(id ?? '', /^req-[0-9a-f-]{36}$/);
      assert.equal(upstream.received[0]!.headers['x-request-id'], id);
    });
  }

  it('every request gets a crystalkv_id of its own, in vllm_xargs and in a header', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const seen = new Set<string>();
    for (const path of ['/v1/chat/completions', '/v1/completions', '/v1/responses', '/v1/messages']) {
      const response = await post(gateway, path, {}, { headers: { 'x-crystalkv-id': 'forged' } });
      const sent = upstream.received.at(-1)!;
      const id = response.headers.get('x-crystalkv-id');
      assert.deepEqual(JSON.parse(sent.body.toString()), { vllm_xargs: { crystalkv_id: id } });
      assert.equal(sent.headers['x-crystalkv-id'], undefined);
      seen.add(id ?? '');
    }
    assert.equal(seen.size, 4);
  });

  it('a vllm_xargs that is no object goes to the backend as it is, and no id is claimed', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const response = await chat(gateway, '{"vllm_xargs":"x"}');
    assert.equal(upstream.received[0]!.body.toString(), '{"vllm_xargs":"x"}');
    assert.equal(response.headers.get('x-crystalkv-id'), null);
  });
});
