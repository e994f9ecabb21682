import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
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
      /^\{"vllm_xargs":\{.*\},"stream_options":\{"include_usage":true,"continuous_usage_stats":true\},"model":"m","messages":\[\],"stream":true\}$/,
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

  const BOTH = '{"include_usage":true,"continuous_usage_stats":true}';
  const SO_FAR =
    'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":11,"completion_tokens":3}}\n\n';
  const BARE = 'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n';
  const SHOWN = { never: BARE + DONE, last: BARE + USAGE + DONE, always: SO_FAR + USAGE + DONE };
  for (const [options, sent, shown] of [
    ['{"include_usage":false}', '{"continuous_usage_stats":true,"include_usage":true}', 'never'],
    ['null', BOTH, 'never'],
    ['{}', BOTH, 'never'],
    ['{"x":true}', '{"include_usage":true,"continuous_usage_stats":true,"x":true}', 'never'],
    ['{"continuous_usage_stats":false}', '{"include_usage":true,"continuous_usage_stats":true}', 'never'],
    ['{"include_usage":0}', '{"continuous_usage_stats":true,"include_usage":true}', 'never'],
    ['{"include_usage":"NO"}', '{"continuous_usage_stats":true,"include_usage":true}', 'never'],
    [
      '{"include_usage":true,"include_usage":0.0}',
      '{"continuous_usage_stats":true,"include_usage":true,"include_usage":true}',
      'never',
    ],
    [
      '{"include_usage": null, "continuous_usage_stats" : true}',
      '{"include_usage": true, "continuous_usage_stats" : true}',
      'never',
    ],
    ['{"include_usage":true}', '{"continuous_usage_stats":true,"include_usage":true}', 'last'],
    ['{"include_usage":"y"}', '{"continuous_usage_stats":true,"include_usage":"y"}', 'last'],
    [BOTH, BOTH, 'always'],
    ['"no"', '"no"', 'always'],
    ['{"include_usage":"maybe"}', '{"include_usage":"maybe"}', 'always'],
  ] as const) {
    it(`stream_options ${options}: the backend gets ${sent}, usage is shown ${shown}`, async (t) => {
      const setup = await keyed(t, stream([SO_FAR, USAGE, DONE]));
      const body = `{"stream":true,"stream_options":${options},"model":"m"}`;
      const text = await (await chat(setup.gateway, body, bearer(key))).text();
      assert.equal(text, SHOWN[shown]);
      assert.ok(asked(setup).endsWith(`"stream":true,"stream_options":${sent},"model":"m"}`), asked(setup));
    });
  }

  for (const value of ['"true"', '1', '1.0', '"yes"', '"ON"', '"t"']) {
    it(`"stream": ${value} is a stream for vLLM, and is counted`, async (t) => {
      const setup = await keyed(t, stream([SO_FAR, USAGE, DONE]));
      const body = `{"stream":${value},"model":"m"}`;
      assert.equal(await (await chat(setup.gateway, body, bearer(key))).text(), SHOWN.never);
      assert.ok(asked(setup).includes(`"stream_options":${BOTH}`));
    });
  }

  it('usage in other forms than vLLM writes them is taken out of the events as well', async (t) => {
    const spaced = 'data: {"usage" : {"prompt_tokens": 1, "details": {}}, "choices": [{"delta": {}}]}\n\n';
    const lines = 'data: {"choices": [{"delta": {}}],\ndata: "usage": {"prompt_tokens": 1}}\n\n';
    const { gateway } = await keyed(t, stream([spaced + lines, DONE]));
    const text = await (await chat(gateway, streamBody, bearer(key))).text();
    assert.equal(text, `data: {"choices": [{"delta": {}}]}\n\ndata: {"choices": [{"delta": {}}]}\n\n${DONE}`);
  });

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

  const words = (index: number, soFar = '') =>
    `data: {"id":"c","choices":[{"index":${index},"delta":{"content":"${'word '.repeat(40)}"}}]${soFar}}\n\n`;
  const soFar = (output: number) =>
    `,"usage":{"prompt_tokens":11,"total_tokens":${11 + output},"completion_tokens":${output}}`;
  for (const [name, events, output] of [
    ['by its bytes, one token an event at least', [BARE, BARE, BARE], 3],
    ['by its bytes, several tokens in an event', [words(0), words(0), words(0)], 150],
    ['as the backend told it, by choice', [words(0, soFar(41)), words(1, soFar(80)), words(0, soFar(82))], 162],
  ] as const) {
    it(`that its client leaves counts what had come: ${name}`, async (t) => {
      const setup = await keyed(t, hangAfter(events));
      await knowsModel(setup);
      await delta(
        () => metric(setup.gateway, TOKENS('output')),
        async () => {
          const leaving = new AbortController();
          const response = await chat(setup.gateway, streamBody, { ...bearer(key), signal: leaving.signal });
          const reader = response.body!.getReader();
          const shown = Buffer.byteLength(events.join('').replaceAll(/,"usage":\{[^}]*\}/g, ''));
          for (let seen = 0; seen < shown; ) seen += (await reader.read()).value!.length;
          leaving.abort();
        },
        output,
      );
    });
  }
});

describe('a response whose usage cannot be read', () => {
  const gzip =
    (body: string): Script =>
    ({ response }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'content-encoding': 'gzip' });
      response.end(gzipSync(body));
    };
  for (const [name, script] of [
    ['because it is compressed', gzip(DELTA + USAGE + DONE)],
    ['because it has none', json(`{"choices":[{"message":{"content":"${'word '.repeat(100)}"}}]}`)],
    ['because it is a stream without', stream([words(50), words(50), DONE])],
  ] as const) {
    it(`counts by its bytes, ${name}`, async (t) => {
      const setup = await keyed(t, script);
      await knowsModel(setup);
      const before = await metric(setup.gateway, TOKENS('output'));
      await (await chat(setup.gateway, { model: 'm', stream: true }, bearer(key))).arrayBuffer();
      await metricReaches(setup.gateway, 'crystalkv_gateway_usage_total{source="estimated"}', 1);
      assert.ok((await metric(setup.gateway, TOKENS('output')))! - (before ?? 0) >= 20);
    });
  }

  function words(count: number) {
    return `data: {"choices":[{"delta":{"content":"${'word '.repeat(count)}"}}]}\n\n`;
  }
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
      'messages with a cache',
      '/v1/messages',
      json(
        '{"usage":{"input_tokens":10,"cache_read_input_tokens":5000,"cache_creation_input_tokens":200,"output_tokens":3}}',
      ),
      5210,
      3,
    ],
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

describe('what is reserved', () => {
  /** Tokens that a key with 100,000,000 a minute has no more while one request runs. */
  async function reserved(t: TestContext, path: string, body: string, limits = {}): Promise<number> {
    const limited = newKey('limited', { tokens_per_minute: 1e8 });
    const { gateway } = await setupKeyed(t, json('{}'), [limited], { limits });
    const response = await post(gateway, path, body, bearer(limited));
    return 1e8 - Number(response.headers.get('x-ratelimit-remaining-tokens'));
  }
  /** About 60 tokens are those of the body itself. */
  const isAbout = (actual: number, wanted: number) =>
    assert.ok(actual >= wanted && actual < wanted + 120, `${actual} is not about ${wanted}`);

  for (const [members, path, wanted] of [
    ['"max_tokens":15000', '/v1/chat/completions', 15_000],
    ['"max_tokens":"15000"', '/v1/chat/completions', 15_000],
    ['"max_tokens":15000.0', '/v1/chat/completions', 15_000],
    ['"max_tokens":1.5e4', '/v1/chat/completions', 15_000],
    ['"max_tokens":" +15_000.0 "', '/v1/chat/completions', 15_000],
    ['"max_completion_tokens":1,"max_tokens":15000', '/v1/completions', 15_000],
    ['"max_completion_tokens":15000,"max_tokens":1', '/v1/chat/completions', 15_000],
    ['"max_tokens":1,"max_tokens":15000', '/v1/completions', 15_000],
    ['"n":"50","max_tokens":100', '/v1/completions', 5_000],
    ['"n":50.0,"max_tokens":100', '/v1/chat/completions', 5_000],
    ['"n":true,"max_tokens":100', '/v1/chat/completions', 100],
    ['"prompt":["a","b","]"],"n":2,"max_tokens":100', '/v1/completions', 600],
    ['"prompt":[[1],[2,3]],"max_tokens":100', '/v1/completions', 200],
    ['"prompt":[1,2,3],"max_tokens":100', '/v1/completions', 100],
    ['"prompt":["a"],"prompt_embeds":["x","y"],"max_tokens":100', '/v1/completions', 300],
    [
      '"messages":[{"role":"user","content":"a, [b"},{"role":"user","content":"c"}],"max_tokens":100',
      '/v1/chat/completions',
      100,
    ],
    ['"max_output_tokens":"700"', '/v1/responses', 700],
    ['"max_tokens":null', '/v1/chat/completions', 1_024],
    ['"max_tokens":"many"', '/v1/chat/completions', 1_024],
  ] as const) {
    it(`${path} {${members}}: ${wanted}`, async (t) => {
      isAbout(await reserved(t, path, `{"model":"m",${members}}`), wanted);
    });
  }

  it('for a prompt is a quarter of its bytes, and a token for each number', async (t) => {
    const text = JSON.stringify({ model: 'm', prompt: 'x'.repeat(100_000), max_tokens: 1 });
    isAbout(await reserved(t, '/v1/completions', text), 25_000);
    const numbers = JSON.stringify({ model: 'm', prompt: Array(20_000).fill(1), max_tokens: 1 });
    isAbout(await reserved(t, '/v1/completions', numbers), 20_000);
  });

  it('for a prompt with images is at most reserve_prompt_max', async (t) => {
    const url = `data:image/png;base64,${'A'.repeat(100_000)}`;
    const content = [{ type: 'image_url', image_url: { url } }];
    const body = JSON.stringify({ model: 'm', messages: [{ role: 'user', content }], max_tokens: 100 });
    isAbout(await reserved(t, '/v1/chat/completions', body, { reserve_prompt_max: 50 }), 150);
  });
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
