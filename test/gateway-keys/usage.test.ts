import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { chat, metric, metricReaches, post, setup } from '../gateway/harness.ts';
import { hang, hangAfter, json, type Script, stream } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';
import { bearer, newKey, setupKeyed } from './harness.ts';

const key = newKey('team-a', { tokens_per_day: 100_000 });
const TOKENS = (direction: string, model = 'm', name = 'team-a') =>
  `crystalkv_gateway_tokens_total{key="${name}",model="${model}",direction="${direction}"}`;

const DELTA =
  'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"é \\"usage\\""}}]}\n\n';
const LAST = 'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n';
const USAGE =
  'data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":11,"total_tokens":18,"completion_tokens":7}}\n\n';
const DONE = 'data: [DONE]\n\n';

/** A gateway with that key, in front of a backend that serves the model `m`. */
async function keyed(t: TestContext, script: Script, config = {}) {
  const all = await setupKeyed(t, script, [key], config);
  all.upstream.models = ['m'];
  return all;
}

/** The first request makes the gateway ask for names; wait until it knows `m`. */
async function knowsModel({ gateway, upstream }: Awaited<ReturnType<typeof keyed>>): Promise<void> {
  const { script } = upstream;
  upstream.script = json('{"usage":{"prompt_tokens":1,"completion_tokens":0}}');
  await until(async () => {
    await (await chat(gateway, { model: 'm' }, bearer(key))).text();
    return (await metric(gateway, TOKENS('input'))) !== undefined;
  }, 'the model is known');
  upstream.script = script;
}

const delta = async (read: () => Promise<number | undefined>, act: () => Promise<void>, by: number) => {
  const before = (await read()) ?? 0;
  await act();
  await until(async () => ((await read()) ?? 0) === before + by, `it grows by ${by}`);
};

describe('a stream whose usage nobody asked for', () => {
  const streamBody = { model: 'm', messages: [], stream: true };
  const asked = ({ upstream }: Awaited<ReturnType<typeof keyed>>) =>
    upstream.received
      .filter(({ url }) => url !== '/v1/models')
      .at(-1)!
      .body.toString();

  it('is counted, and the client gets every byte but that event', async (t) => {
    const setup = await keyed(t, stream([DELTA, LAST, USAGE, DONE]));
    await knowsModel(setup);
    const { gateway } = setup;
    await delta(
      () => metric(gateway, TOKENS('output')),
      async () => {
        assert.equal(await (await chat(gateway, streamBody, bearer(key))).text(), DELTA + LAST + DONE);
      },
      7,
    );
    assert.match(
      asked(setup),
      /^\{"vllm_xargs":\{.*\},"stream_options":\{"include_usage":true\},"model":"m","messages":\[\],"stream":true\}$/,
    );
  });

  it('is the same wherever its bytes are cut', async (t) => {
    const bytes = Buffer.from(DELTA + LAST + USAGE + DONE);
    const setup = await keyed(t, stream([]));
    for (let at = 1; at < bytes.length; at += 7) {
      setup.upstream.script = stream([bytes.subarray(0, at), bytes.subarray(at)]);
      const text = await (await chat(setup.gateway, streamBody, bearer(key))).text();
      assert.equal(text, DELTA + LAST + DONE, `cut at ${at}`);
    }
  });

  it('with CR and LF is the same', async (t) => {
    const crlf = (text: string) => text.replaceAll('\n', '\r\n');
    const { gateway } = await keyed(t, stream([crlf(DELTA + USAGE), crlf(DONE)]));
    assert.equal(await (await chat(gateway, streamBody, bearer(key))).text(), crlf(DELTA + DONE));
  });

  for (const [options, sent, hidden] of [
    ['{"include_usage":false}', '{"include_usage":true}', true],
    ['null', '{"include_usage":true}', true],
    [
      '{"include_usage": null, "continuous_usage_stats" : true}',
      '{"include_usage": true, "continuous_usage_stats" : false}',
      true,
    ],
    ['{"include_usage":true}', '{"include_usage":true}', false],
    [
      '{"include_usage":true,"continuous_usage_stats":true}',
      '{"include_usage":true,"continuous_usage_stats":true}',
      false,
    ],
    ['{}', '{}', false],
    ['"no"', '"no"', false],
  ] as const) {
    it(`stream_options ${options}: the backend gets ${sent}, the event is ${hidden ? 'hidden' : 'shown'}`, async (t) => {
      const setup = await keyed(t, stream([DELTA, USAGE, DONE]));
      const body = `{"stream":true,"stream_options":${options},"model":"m"}`;
      const text = await (await chat(setup.gateway, body, bearer(key))).text();
      assert.equal(text, hidden ? DELTA + DONE : DELTA + USAGE + DONE);
      assert.ok(asked(setup).endsWith(`"stream":true,"stream_options":${sent},"model":"m"}`));
    });
  }

  it('usage in every event is not hidden, and counts once', async (t) => {
    const continuous = (output: number) =>
      `data: {"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":11,"completion_tokens":${output}}}\n\n`;
    const bytes = continuous(1) + continuous(2) + USAGE + DONE;
    const setup = await keyed(t, stream([bytes]));
    await knowsModel(setup);
    await delta(
      () => metric(setup.gateway, TOKENS('output')),
      async () => {
        const options = { include_usage: true, continuous_usage_stats: true };
        const body = { ...streamBody, stream_options: options };
        assert.equal(await (await chat(setup.gateway, body, bearer(key))).text(), bytes);
      },
      7,
    );
  });

  it('without keys nothing is asked for and nothing hidden, and what is told is counted', async (t) => {
    const { gateway, upstream } = await setup(t, stream([DELTA, USAGE, DONE]));
    assert.equal(await (await chat(gateway, streamBody)).text(), DELTA + USAGE + DONE);
    assert.ok(!upstream.received.some(({ body }) => body.includes('stream_options')));
    await metricReaches(gateway, 'crystalkv_gateway_usage_total{source="reported"}', 1);
  });

  it('that its client leaves counts what had come', async (t) => {
    const setup = await keyed(t, hangAfter([DELTA, DELTA, DELTA]));
    await knowsModel(setup);
    await delta(
      () => metric(setup.gateway, TOKENS('output')),
      async () => {
        const leaving = new AbortController();
        const response = await chat(setup.gateway, streamBody, { ...bearer(key), signal: leaving.signal });
        const reader = response.body!.getReader();
        for (let seen = 0; seen < Buffer.byteLength(DELTA) * 3; ) seen += (await reader.read()).value!.length;
        leaving.abort();
      },
      3,
    );
    await metricReaches(setup.gateway, 'crystalkv_gateway_usage_total{source="estimated"}', 1);
  });
});

describe('a client that leaves before the first byte', () => {
  it('pays for its prompt', async (t) => {
    const setup = await keyed(t, hang);
    await knowsModel(setup);
    // 400 bytes of a prompt and what is around it, four to a token
    const body = { model: 'm', messages: [{ role: 'user', content: 'x'.repeat(400) }] };
    const before = (await metric(setup.gateway, TOKENS('input'))) ?? 0;
    const { received } = setup.upstream;
    const asked = received.length;
    const leaving = new AbortController();
    const answer = chat(setup.gateway, body, { ...bearer(key), signal: leaving.signal });
    await until(() => received.length > asked, 'the backend has the request');
    leaving.abort();
    await assert.rejects(answer);
    await metricReaches(setup.gateway, 'crystalkv_gateway_usage_total{source="estimated"}', 1);
    assert.equal(await metric(setup.gateway, TOKENS('input')), before + Math.ceil(received.at(-1)!.body.length / 4));
  });
});

describe('usage of every API', () => {
  const event = (name: string, data: object) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
  const cases: [name: string, path: string, script: Script, input: number, output: number][] = [
    [
      'chat',
      '/v1/chat/completions',
      json(
        '{"choices":[{"message":{"content":"{\\"usage\\":{\\"prompt_tokens\\":9}}"}}],"usage":{"prompt_tokens":5,"completion_tokens":6}}',
      ),
      5,
      6,
    ],
    [
      'embeddings',
      '/v1/embeddings',
      json('{"data":[{"embedding":[0.1,-2]}],"usage":{"prompt_tokens":8,"total_tokens":8}}'),
      8,
      0,
    ],
    [
      'responses',
      '/v1/responses',
      json('{"output":[{"usage":{"input_tokens":1}}],"usage":{"input_tokens":3,"output_tokens":4}}'),
      3,
      4,
    ],
    ['messages', '/v1/messages', json('{"content":[],"usage":{"input_tokens":2,"output_tokens":9}}'), 2, 9],
    [
      'responses, streamed',
      '/v1/responses',
      stream([
        event('response.created', { type: 'response.created', response: { usage: null } }),
        event('response.output_text.delta', { delta: 'x' }),
        event('response.completed', {
          type: 'response.completed',
          response: { usage: { input_tokens: 21, output_tokens: 22 } },
        }),
      ]),
      21,
      22,
    ],
    [
      'messages, streamed',
      '/v1/messages',
      stream([
        event('message_start', { type: 'message_start', message: { usage: { input_tokens: 31, output_tokens: 0 } } }),
        event('content_block_delta', { delta: { text: 'x' } }),
        event('message_delta', { type: 'message_delta', usage: { output_tokens: 32 } }),
        event('message_stop', { type: 'message_stop' }),
      ]),
      31,
      32,
    ],
  ];
  for (const [name, path, script, input, output] of cases) {
    it(`${name}: ${input} in, ${output} out, and no byte is changed`, async (t) => {
      const setup = await keyed(t, script);
      await knowsModel(setup);
      const before = await Promise.all([
        metric(setup.gateway, TOKENS('input')),
        metric(setup.gateway, TOKENS('output')),
      ]);
      const streamed = name.endsWith('streamed');
      const response = await post(setup.gateway, path, { model: 'm', stream: streamed }, bearer(key));
      const direct = await fetch(`${setup.upstream.url}${path}`, { method: 'POST', body: '{}' });
      assert.equal(await response.text(), await direct.text());
      await metricReaches(setup.gateway, TOKENS('input'), (before[0] ?? 0) + input);
      if (output > 0) await metricReaches(setup.gateway, TOKENS('output'), (before[1] ?? 0) + output);
    });
  }

  it('an error costs nothing, and a name that no backend knows is no label', async (t) => {
    const { gateway, upstream } = await keyed(t, json('{"usage":{"prompt_tokens":5}}', 400));
    await chat(gateway, { model: 'm' }, bearer(key));
    await metricReaches(gateway, 'crystalkv_gateway_usage_total{source="none"}', 1);
    upstream.script = json('{"usage":{"prompt_tokens":5,"completion_tokens":1}}');
    await chat(gateway, { model: 'invented-by-a-client' }, bearer(key));
    await metricReaches(gateway, TOKENS('input', 'other'), 5);
    assert.ok(!(await (await fetch(gateway.metricsUrl)).text()).includes('invented'));
  });
});

describe('tokens and limits', () => {
  it('a key whose day is used up gets a 429 that no client retries by itself', async (t) => {
    const spent = newKey('spent', { tokens_per_day: 15 });
    const { gateway } = await setupKeyed(t, json('{"usage":{"prompt_tokens":9,"completion_tokens":6}}'), [spent]);
    const ask = () => chat(gateway, { model: 'm', max_tokens: 4 }, bearer(spent));
    assert.equal((await ask()).status, 200);
    const refused = await until(async () => {
      const response = await ask();
      return response.status === 429 && response;
    }, 'the day is used up');
    assert.equal(refused.headers.get('x-should-retry'), 'false');
    const { error } = (await refused.json()) as { error: { type: string; code: string } };
    assert.deepEqual([error.type, error.code], ['gateway_quota_used', 'insufficient_quota']);
  });

  it('what a running request reserves is shown to the next, and given back', async (t) => {
    const limited = newKey('limited', { tokens_per_minute: 1_000 });
    const { gateway, upstream } = await setupKeyed(t, hangAfter([DELTA]), [limited]);
    const leaving = new AbortController();
    const body = { model: 'm', messages: [], stream: true, max_tokens: 2_000 };
    await chat(gateway, body, { ...bearer(limited), signal: leaving.signal });
    assert.equal((await chat(gateway, body, bearer(limited))).status, 429);
    leaving.abort();
    upstream.script = json('{"usage":{"prompt_tokens":1,"completion_tokens":1}}');
    await until(async () => (await chat(gateway, body, bearer(limited))).status === 200, 'the tokens are given back');
  });
});

describe('what is reserved for a prompt', () => {
  for (const [most, prompt] of [
    [50, 50],
    [100_000, undefined],
  ] as const) {
    it(`is a quarter of its bytes, at most reserve_prompt_max (${most})`, async (t) => {
      const limited = newKey('limited', { tokens_per_minute: 10_000 });
      const { gateway, upstream } = await setupKeyed(t, json('{}'), [limited], {
        limits: { reserve_prompt_max: most },
      });
      const body = { model: 'm', messages: [{ role: 'user', content: 'x'.repeat(4_000) }], max_tokens: 100 };
      const response = await chat(gateway, body, bearer(limited));
      const reserved = prompt ?? Math.ceil(upstream.received.at(-1)!.body.length / 4);
      assert.equal(response.headers.get('x-ratelimit-remaining-tokens'), String(10_000 - reserved - 100));
    });
  }
});

describe('compat.reasoning_content', () => {
  const config = { compat: { reasoning_content: true } };

  it('puts the alias behind reasoning in messages and deltas, and changes nothing else', async (t) => {
    const body =
      '{ "choices": [ {"message":{"role":"assistant","reasoning": "a\\u00e9\\n", "content":"\\"reasoning\\": 1"}}, {"message":{"reasoning":null}} ], "big": 12345678901234567890 }';
    const { gateway, upstream } = await setup(t, json(body), config);
    assert.equal(
      await (await chat(gateway)).text(),
      body
        .replace('"a\\u00e9\\n"', '"a\\u00e9\\n","reasoning_content":"a\\u00e9\\n"')
        .replace('"reasoning":null', '"reasoning":null,"reasoning_content":null'),
    );
    upstream.script = stream([
      'data: {"choices":[{"delta":{"reasoning":"é"}}]}\n\ndata: {"choices":[{"delta":{"content":"\\"reasoning\\""}}]}\n\n',
      DONE,
    ]);
    assert.equal(
      await (await chat(gateway)).text(),
      `data: {"choices":[{"delta":{"reasoning":"é","reasoning_content":"é"}}]}\n\ndata: {"choices":[{"delta":{"content":"\\"reasoning\\""}}]}\n\n${DONE}`,
    );
  });

  it('leaves what has it already, other paths, and errors', async (t) => {
    const both = '{"choices":[{"message":{"reasoning":"x","reasoning_content":"y"}}]}';
    const { gateway, upstream } = await setup(t, json(both), config);
    assert.equal(await (await chat(gateway)).text(), both);
    const one = '{"choices":[{"message":{"reasoning":"x"}}]}';
    upstream.script = json(one);
    assert.equal(await (await post(gateway, '/v1/completions', {})).text(), one);
    upstream.script = json(one, 400);
    assert.equal(await (await chat(gateway)).text(), one);
  });

  it('is off by default', async (t) => {
    const one = '{"choices":[{"message":{"reasoning":"x"}}]}';
    const { gateway } = await setup(t, json(one));
    assert.equal(await (await chat(gateway)).text(), one);
  });
});
