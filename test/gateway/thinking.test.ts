import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import OpenAI from 'openai';
import { Repetition } from '../../gateway/thinking/repetition.ts';
import { bearer, newKey, setupKeyed } from '../gateway-keys/harness.ts';
import { until } from '../support/until.ts';
import { chat, metricReaches, post, setup } from './harness.ts';
import { hangAfter, json, stream } from './upstream.ts';

const LOOP = 'Wait, let me check that again. Is 17 a prime number? Yes, it has no divisors but one and itself. ';
/** Different words each time. */
const varied = (from: number, count: number) => Array.from({ length: count }, (_, i) => `w${from + i} `).join('');
const STOPS = { thinking: { stop_repeating: true } };
const stopped = (reason: string) => `crystalkv_gateway_thinking_stopped_total{reason="${reason}"}`;

const thought = (text: string, tokens?: number) =>
  `data: ${JSON.stringify({
    ...{ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: 'm' },
    choices: [{ index: 0, delta: { reasoning: text }, logprobs: null, finish_reason: null }],
    ...(tokens !== undefined && { usage: { prompt_tokens: 5, total_tokens: 5 + tokens, completion_tokens: tokens } }),
  })}\n\n`;
const ANSWER = 'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"7"},"finish_reason":"stop"}]}\n\n';
const DONE = 'data: [DONE]\n\n';
interface Event {
  type?: string;
  id?: string;
  sequence_number?: number;
  choices?: { finish_reason: string | null }[];
  delta?: { stop_reason?: string };
  usage?: { output_tokens?: number };
  response?: object;
}
const dataOf = (text: string) => [...text.matchAll(/^data: (\{.*\})$/gm)].map(([, data]) => JSON.parse(data!) as Event);

describe('text that repeats itself', () => {
  const pieces = (text: string, size: number) =>
    Array.from({ length: Math.ceil(text.length / size) }, (_, i) => text.slice(i * size, (i + 1) * size));
  const repeats = (text: string, size = 7) => {
    const repetition = new Repetition();
    return pieces(text, size).some((piece) => repetition.add(piece));
  };
  const block = varied(0, 70);

  it('is seen at the third time, however it is cut, also with other text between', () => {
    for (const size of [1, 3, 1000]) {
      assert.equal(repeats(block.repeat(2), size), false);
      assert.equal(repeats(`${block.repeat(3)}.`, size), true);
      assert.equal(repeats(`${block}so ${varied(500, 90)}${block}but ${varied(900, 30)}${block}.`, size), true);
    }
    assert.equal(repeats('no '.repeat(3 * 64 + 1)), true);
    assert.equal(repeats('我们再想一想这个问题，'.repeat(20), 1), true);
  });

  it('is not what only has phrases in common, or repeats less than the window', () => {
    assert.equal(repeats(varied(0, 20_000)), false);
    assert.equal(repeats(Array.from({ length: 200 }, (_, i) => `${LOOP}Now ${i}. `.repeat(1)).join('')), false);
    assert.equal(repeats('no '.repeat(150)), false);
  });
});

describe('a stream whose thinking repeats itself', () => {
  const looping = (tokens: boolean) =>
    Array.from({ length: 40 }, (_, i) => thought(LOOP, tokens ? 25 * (i + 1) : undefined));

  it('is ended with a reason of its own, and the backend is left', async (t) => {
    const { gateway, upstream, log } = await setup(t, hangAfter(looping(false)), STOPS);
    const text = await (await chat(gateway, { stream: true })).text();
    const events = dataOf(text);
    const last = events.at(-1)!;
    assert.deepEqual(last.choices, [{ index: 0, delta: {}, logprobs: null, finish_reason: 'thinking_loop' }]);
    assert.equal(last.id, 'chatcmpl-1');
    assert.ok(events.length < 20, `${events.length}`);
    assert.ok(text.endsWith(`\n\n${DONE}`));
    assert.equal(text.split('[DONE]').length, 2);
    await until(() => upstream.received[0]!.aborted, 'the backend was left');
    await metricReaches(gateway, stopped('thinking_loop'), 1);
    assert.equal(log.find(({ msg }) => msg === 'request')?.['outcome'], 'ok');
  });

  it('goes on where nobody asked for that, and where it answers in time', async (t) => {
    const { gateway } = await setup(t, stream([...looping(false), ANSWER, DONE]));
    assert.equal(await (await chat(gateway, { stream: true })).text(), looping(false).join('') + ANSWER + DONE);
    const short = [thought(LOOP), thought(varied(0, 50)), ANSWER, DONE];
    const other = await setup(t, stream(short), STOPS);
    assert.equal(await (await chat(other.gateway, { stream: true })).text(), short.join(''));
  });

  it('is counted by what the backend said so far, and an SDK reads it to its end', async (t) => {
    const key = newKey('team', { tokens_per_day: 1_000_000 });
    const { gateway } = await setupKeyed(t, hangAfter(looping(true)), [key], STOPS);
    const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: key.secret, maxRetries: 0 });
    const chunks = [];
    const request = { model: 'm', messages: [], stream: true as const, stream_options: { include_usage: true } };
    for await (const chunk of await client.chat.completions.create(request)) chunks.push(chunk);
    const usage = chunks.at(-1)!.usage!;
    assert.equal(chunks.at(-2)!.choices[0]!.finish_reason as string, 'thinking_loop');
    assert.equal(usage.completion_tokens % 25, 0);
    const series = 'crystalkv_gateway_tokens_total{key="team",model="other",direction="output"}';
    await metricReaches(gateway, series, usage.completion_tokens);
  });
});

describe('a limit on thinking', () => {
  const long = (tokens: boolean) =>
    Array.from({ length: 30 }, (_, i) => thought(varied(4 * i, 4), tokens ? 4 * (i + 1) : undefined));
  const ended = async (t: TestContext, grants: object, config: object, body: object, tokens = true) => {
    const key = newKey('team', grants);
    const { gateway } = await setupKeyed(
      t,
      stream([...long(tokens), ANSWER, DONE]),
      [key],
      config as Record<string, unknown>,
    );
    const text = await (await chat(gateway, { model: 'm', stream: true, ...body }, bearer(key))).text();
    const events = dataOf(text);
    assert.ok(text.endsWith(DONE));
    return { events, reason: events.at(-1)!.choices![0]!.finish_reason };
  };

  it('of a key ends the stream at the token that the server counts', async (t) => {
    const { events, reason } = await ended(t, { max_thinking_tokens: 40 }, {}, {});
    assert.equal(reason, 'thinking_limit');
    assert.equal(events.length, 12);
    assert.ok(events.every((event) => event.usage === undefined));
  });

  it('is of bytes where the server does not count', async (t) => {
    const { events, reason } = await ended(t, { max_thinking_tokens: 40 }, { usage: { metering: 'off' } }, {}, false);
    assert.equal(reason, 'thinking_limit');
    assert.ok(events.length >= 9 && events.length <= 14, `${events.length}`);
  });

  it('of a profile holds for its requests, and the lower one of both', async (t) => {
    const config = { thinking: { max_thinking_tokens: { fast: 20 } } };
    const fast = { crystal_kv: { profile: 'fast' } };
    assert.equal((await ended(t, {}, config, fast)).events.length, 7);
    assert.equal((await ended(t, { max_thinking_tokens: 8 }, config, fast)).events.length, 4);
    assert.equal((await ended(t, {}, config, {})).reason, 'stop');
    assert.equal((await ended(t, { max_thinking_tokens: 1000 }, {}, {})).reason, 'stop');
  });

  it('does not hold for a response that is not streamed', async (t) => {
    const key = newKey('team', { max_thinking_tokens: 1 });
    const answer = JSON.stringify({ choices: [{ message: { reasoning: varied(0, 100), content: '7' } }] });
    const { gateway } = await setupKeyed(t, json(answer), [key]);
    assert.equal(await (await chat(gateway, { model: 'm' }, bearer(key))).text(), answer);
  });
});

describe('in the other APIs', () => {
  const named = (type: string, data: object) => `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`;

  it('a message ends as messages do', async (t) => {
    const delta = named('content_block_delta', { index: 0, delta: { type: 'thinking_delta', thinking: LOOP } });
    const start = named('message_start', { message: { id: 'msg_1', usage: { input_tokens: 5, output_tokens: 0 } } });
    const { gateway, upstream } = await setup(t, hangAfter([start, delta.repeat(30)]), STOPS);
    const text = await (await post(gateway, '/v1/messages', { stream: true })).text();
    const [stop, message, end] = dataOf(text).slice(-3);
    assert.deepEqual(stop, { type: 'content_block_stop', index: 0 });
    assert.equal(message!.delta!.stop_reason, 'thinking_loop');
    assert.ok(message!.usage!.output_tokens! > 50);
    assert.deepEqual(end, { type: 'message_stop' });
    await until(() => upstream.received[0]!.aborted, 'the backend was left');
  });

  it('a response is incomplete', async (t) => {
    const created = named('response.created', {
      sequence_number: 0,
      response: { id: 'resp_1', status: 'in_progress' },
    });
    const delta = (n: number) =>
      named('response.reasoning_text.delta', { sequence_number: n, item_id: 'r', delta: LOOP });
    const deltas = Array.from({ length: 30 }, (_, i) => delta(i + 1));
    const { gateway } = await setup(t, hangAfter([created, ...deltas]), STOPS);
    const text = await (await post(gateway, '/v1/responses', { stream: true })).text();
    const events = dataOf(text);
    const last = events.at(-1)!;
    assert.equal(last.type, 'response.incomplete');
    assert.equal(last.sequence_number, events.at(-2)!.sequence_number! + 1);
    assert.deepEqual(last.response, {
      ...{ id: 'resp_1', status: 'incomplete', incomplete_details: { reason: 'thinking_loop' } },
    });
  });
});
