import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { until } from '../support/until.ts';
import { fleet, modelsKnown, named, whoAnswers } from './fleet-harness.ts';
import { chat, type ErrorAnswer, metricReaches, post, setup } from './harness.ts';
import { createUpstream, hang, json, rawClient } from './upstream.ts';

const LEARN = { models: { interval_ms: 500 } };

async function modelIds(gateway: { url: string }): Promise<string[]> {
  const answer = (await (await fetch(`${gateway.url}/v1/models`)).json()) as { data: { id: string }[] };
  return answer.data.map(({ id }) => id);
}

describe('models of a fleet', () => {
  it('a request goes to a backend that serves its model, as the backends themselves say', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], LEARN);
    upstreams[0]!.models = ['small', 'shared'];
    upstreams[1]!.models = ['large', 'shared'];
    await modelsKnown(gateway);
    for (let i = 0; i < 3; i++) assert.equal(await whoAnswers(gateway, { model: 'small' }), 'a');
    for (let i = 0; i < 3; i++) assert.equal(await whoAnswers(gateway, { model: 'large' }), 'b');
    const both = new Set<string | number>();
    for (let i = 0; i < 4; i++) both.add(await whoAnswers(gateway, { model: 'shared' }));
    assert.deepEqual([...both].toSorted(), ['a', 'b']);
  });

  it('a model that none lists goes to any, where servers load adapters on demand', async (t) => {
    const upstreams = await Promise.all([named('a'), named('a')].map((script) => createUpstream(script)));
    t.after(() => Promise.all(upstreams.map((upstream) => upstream.close())));
    const backends = upstreams.map(({ url }) => ({ url, models: ['m'] }));
    const refusing = await fleet(t, [], { backends, models: { learn: false } });
    assert.equal(await whoAnswers(refusing.gateway, { model: 'adapter-on-demand' }), 404);
    const { gateway } = await fleet(t, [], { backends, models: { learn: false, unlisted: 'any' } });
    assert.equal(await whoAnswers(gateway, { model: 'adapter-on-demand' }), 'a');
  });

  it('an unknown model is a 404 as vLLM says it', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], LEARN);
    for (const upstream of upstreams) upstream.models = ['m'];
    await modelsKnown(gateway);
    const response = await chat(gateway, { model: 'x' });
    assert.equal(response.status, 404);
    assert.deepEqual((await response.json()) as ErrorAnswer, {
      error: { message: 'The model `x` does not exist.', type: 'NotFoundError', param: 'model', code: 404 },
    });
  });

  it('while the models of one are not known, a model that no other serves goes to that one', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], LEARN);
    upstreams[0]!.models = ['m'];
    await until(async () => {
      const answers = [];
      for (let i = 0; i < 4; i++) answers.push(await whoAnswers(gateway, { model: 'm' }));
      return answers.every((name) => name === 'a');
    }, 'the models of one are known');
    for (let i = 0; i < 4; i++) assert.equal(await whoAnswers(gateway, { model: 'x' }), 'b');
  });

  it('a model that is loaded later is found', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], LEARN);
    for (const upstream of upstreams) upstream.models = ['m'];
    await modelsKnown(gateway);
    upstreams[1]!.models = ['m', 'adapter'];
    await until(async () => (await whoAnswers(gateway, { model: 'adapter' })) === 'b', 'the adapter is found');
  });

  it('what is configured is not asked for', async (t) => {
    const upstreams = [await createUpstream(named('a')), await createUpstream(named('b'))];
    const backends = [
      { url: upstreams[0]!.url, models: ['small'] },
      { url: upstreams[1]!.url, models: ['large'] },
    ];
    t.after(() => Promise.all(upstreams.map((upstream) => upstream.close())));
    const { gateway } = await fleet(t, [], { backends, models: { learn: false } });
    assert.equal(await whoAnswers(gateway, { model: 'small' }), 'a');
    assert.equal(await whoAnswers(gateway, { model: 'large' }), 'b');
    assert.equal(await whoAnswers(gateway, { model: 'other' }), 404);
  });

  it('paths whose bodies are not rewritten are routed too, and a body that is not JSON is the backend’s to refuse', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], LEARN);
    upstreams[0]!.models = ['small'];
    upstreams[1]!.models = ['large'];
    await modelsKnown(gateway);
    for (let i = 0; i < 3; i++) {
      const response = await post(gateway, '/tokenize', '{ "prompt":"x", "model" : "large" }');
      assert.deepEqual(await response.json(), { name: 'b' });
      assert.equal(upstreams[1]!.received.at(-1)!.body.toString(), '{ "prompt":"x", "model" : "large" }');
    }
    assert.equal((await post(gateway, '/tokenize', 'not json')).status, 200);
    const one = await fetch(`${gateway.url}/v1/models/large`);
    assert.deepEqual(await one.json(), { name: 'b' });
  });
});

describe('the list of models of a fleet with a backend that hangs', () => {
  it('has what the others say, and what that one said before', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], LEARN);
    upstreams[0]!.models = ['small'];
    upstreams[1]!.models = ['large'];
    await modelsKnown(gateway);
    upstreams[1]!.script = hang;
    // Answers to clients, which are not recorded as the gateway's own questions.
    upstreams[0]!.script = json('{"object":"list","data":[{"id":"small"}]}');
    const since = performance.now();
    const list = (await (await fetch(`${gateway.url}/v1/models`)).json()) as { data: { id: string }[] };
    assert.deepEqual(list.data.map(({ id }) => id).sort(), ['large', 'small']);
    assert.ok(performance.now() - since < 4_000, 'it waited for the backend that hangs');
  });

  it('is answered from what is known when all of them hang', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], LEARN);
    for (const upstream of upstreams) upstream.models = ['m'];
    await modelsKnown(gateway);
    for (const upstream of upstreams) upstream.script = hang;
    const since = performance.now();
    const list = (await (await fetch(`${gateway.url}/v1/models`)).json()) as { data: { id: string }[] };
    assert.deepEqual(list.data, [{ id: 'm', object: 'model' }]);
    assert.ok(performance.now() - since < 4_000, 'it waited for backends that hang');
  });
});

describe('uploads in a fleet whose backends serve different models', () => {
  const started = async (t: TestContext) => {
    const { gateway, upstreams, counts } = await fleet(t, [named('chat'), named('audio')], LEARN);
    upstreams[0]!.models = ['llm'];
    upstreams[1]!.models = ['whisper'];
    await modelsKnown(gateway);
    return { gateway, upstreams, before: counts()[0]! };
  };
  const send = async (gateway: { url: string }, form: FormData) => {
    const response = await fetch(`${gateway.url}/v1/audio/transcriptions`, { method: 'POST', body: form });
    return (await response.json()) as object;
  };

  for (const [order, bytes] of [
    ['model first', 1_000_000],
    ['file first', 20_000],
  ] as const) {
    it(`go by the form's field (${order}), to the byte`, async (t) => {
      const { gateway, upstreams } = await started(t);
      const file = new Blob([Buffer.alloc(bytes, 7)]);
      for (let i = 0; i < 4; i++) {
        const form = new FormData();
        if (order === 'model first') form.set('model', 'whisper');
        form.set('file', file, 'speech.wav');
        if (order === 'file first') form.set('model', 'whisper');
        assert.deepEqual(await send(gateway, form), { name: 'audio' });
        const received = upstreams[1]!.received.at(-1)!;
        assert.equal(String(received.body.length), received.headers['content-length']);
        const parsed = await new Response(new Uint8Array(received.body), {
          headers: { 'content-type': received.headers['content-type']! },
        }).formData();
        assert.deepEqual(Buffer.from(await (parsed.get('file') as File).arrayBuffer()), Buffer.alloc(bytes, 7));
      }
    });
  }

  it('an unknown model is a 404; a form without the field may go anywhere', async (t) => {
    const { gateway } = await started(t);
    const form = new FormData();
    form.set('model', 'unheard-of');
    assert.match(JSON.stringify(await send(gateway, form)), /The model `unheard-of` does not exist/);
    const empty = new FormData();
    empty.set('language', 'en');
    assert.match(JSON.stringify(await send(gateway, empty)), /chat|audio/);
  });

  it('a client that leaves while its form is looked at is not waited for', async (t) => {
    const { gateway } = await started(t);
    const client = await rawClient(gateway.port);
    client.write(
      'POST /v1/audio/transcriptions HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 999\r\n\r\n--x\r\n',
    );
    await metricReaches(gateway, 'crystalkv_gateway_inflight', 1);
    client.socket.destroy();
    await metricReaches(gateway, 'crystalkv_gateway_client_aborts_total{stage="upload"}', 1);
    await metricReaches(gateway, 'crystalkv_gateway_inflight', 0);
  });
});

describe('aliases', () => {
  const aliases = { aliases: { 'gpt-4o': 'org/real' }, interval_ms: 500 };

  it('the backend gets the real name and all other bytes as they were', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], { models: aliases });
    upstreams[0]!.models = ['other'];
    upstreams[1]!.models = ['org/real'];
    await modelsKnown(gateway);
    const text = '{ "model" : "gpt-4o","seed":9007199254740993, "messages" : [ ] }';
    for (const path of ['/v1/embeddings', '/tokenize']) {
      assert.deepEqual(await (await post(gateway, path, text)).json(), { name: 'b' });
      const expected = '{ "model" : "org/real","seed":9007199254740993, "messages" : [ ] }';
      assert.equal(upstreams[1]!.received.at(-1)!.body.toString(), expected);
    }
    assert.equal(await whoAnswers(gateway, { model: 'gpt-4o' }), 'b');
    assert.match(upstreams[1]!.received.at(-1)!.body.toString(), /"model":"org\/real"/);
    await (await fetch(`${gateway.url}/v1/models/gpt-4o`)).text();
    assert.equal(upstreams[1]!.received.at(-1)!.url, '/v1/models/org%2Freal');
  });

  it('works in front of one backend, which is asked for nothing', async (t) => {
    const { gateway, upstream } = await setup(t, named('a'), { models: aliases });
    assert.equal(await whoAnswers(gateway, { model: 'gpt-4o' }), 'a');
    assert.match(upstream.received[0]!.body.toString(), /"model":"org\/real"/);
    assert.equal(await whoAnswers(gateway, { model: 'unheard-of' }), 'a');
  });
});

describe('/v1/models', () => {
  const list = (...ids: string[]) =>
    json(JSON.stringify({ object: 'list', data: ids.map((id) => ({ id, object: 'model', max_model_len: 4096 })) }));

  it('is one list of all backends, with the aliases of models that are there', async (t) => {
    const { gateway, upstreams } = await fleet(t, [list('a', 'b'), list('b', 'c')], {
      models: { aliases: { short: 'c', lost: 'd' }, learn: false },
    });
    assert.deepEqual(await modelIds(gateway), ['a', 'b', 'c', 'short']);
    const first = upstreams[0]!.received[0]!;
    assert.equal(first.url, '/v1/models');
    const response = await fetch(`${gateway.url}/v1/models`, { headers: { authorization: 'Bearer k' } });
    assert.match(response.headers.get('x-request-id') ?? '', /^req-/);
    assert.equal(upstreams[1]!.received.at(-1)!.headers['authorization'], 'Bearer k');
    const { data } = (await response.json()) as { data: Record<string, unknown>[] };
    assert.deepEqual(data[3], { id: 'short', object: 'model', max_model_len: 4096 });
  });

  it('leaves out a backend that does not answer, and passes on an error when none gives a list', async (t) => {
    const { gateway, upstreams } = await fleet(t, [list('a'), json('{"error":1}', 401)], { models: { learn: false } });
    assert.deepEqual(await modelIds(gateway), ['a']);
    upstreams[0]!.script = json('{"error":1}', 401);
    const response = await fetch(`${gateway.url}/v1/models`);
    assert.equal(response.status, 401);
    assert.equal(await response.text(), '{"error":1}');
    await Promise.all(upstreams.map((upstream) => upstream.close()));
    assert.equal((await fetch(`${gateway.url}/v1/models`)).status, 502);
  });

  it('with one backend passes unchanged to the byte', async (t) => {
    const text = '{ "object":"list",  "data":[{"id":"m","created":1.0}] }';
    const { gateway } = await setup(t, json(text));
    assert.equal(await (await fetch(`${gateway.url}/v1/models`)).text(), text);
  });

  it('of one backend that hangs is what it said before, soon', async (t) => {
    const text = '{"object":"list","data":[{"id":"m","object":"model"}]}';
    const { gateway, upstream } = await setup(t, json(text));
    upstream.models = ['m'];
    assert.equal(await (await fetch(`${gateway.url}/v1/models`)).text(), text);
    upstream.server.removeAllListeners('request').on('request', () => {});
    const started = performance.now();
    const answer = (await (await fetch(`${gateway.url}/v1/models`)).json()) as { data: { id: string }[] };
    assert.deepEqual(
      answer.data.map(({ id }) => id),
      ['m'],
    );
    assert.ok(performance.now() - started < 4_000);
  });
});
