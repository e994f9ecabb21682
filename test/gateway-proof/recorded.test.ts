import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import OpenAI, { APIError, BadRequestError, NotFoundError, RateLimitError } from 'openai';
import type { Gateway } from '../../gateway/gateway.ts';
import { ROUTES } from '../../gateway/routes.ts';
import { startGateway } from '../gateway/harness.ts';
import { createUpstream, type Upstream } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';
import { createReplay, RECORDED } from './replay.ts';

const MESSAGES = [{ role: 'user' as const, content: 'hello' }];

describe('what a real vLLM 0.32 answered', () => {
  it('passes to the byte, event by event and error by error', async (t) => {
    let next = '';
    const upstream = await createUpstream(({ response }) => {
      const { status, headers, text } = RECORDED[next] ?? RECORDED['models']!;
      response.writeHead(
        status,
        headers['content-type'] === undefined ? {} : { 'content-type': headers['content-type'] },
      );
      response.end(text);
    });
    const { gateway } = await startGateway({ backends: [upstream.url], retries: { max: 0 } });
    t.after(() => Promise.all([gateway.close(), upstream.close()]));
    let compared = 0;
    for (const [name, { request, status, headers, text }] of Object.entries(RECORDED)) {
      if (!ROUTES.some(({ method, path }) => method === request.method && path === request.path)) continue;
      next = name;
      const body = request.body === undefined ? {} : { body: JSON.stringify(request.body) };
      const response = await fetch(gateway.url + request.path, { method: request.method, ...body });
      assert.equal(response.status, status, name);
      assert.equal(response.headers.get('content-type'), headers['content-type'] ?? null, name);
      if (name !== 'models') assert.equal(await response.text(), text, name);
      compared++;
    }
    assert.ok(compared >= 25, `${compared} exchanges`);
  });
});

describe('the official Node SDK on them', () => {
  let upstream: Upstream;
  let gateway: Gateway;
  let client: OpenAI;
  before(async () => {
    upstream = await createReplay();
    ({ gateway } = await startGateway({ backends: [upstream.url], retries: { max: 0 } }));
    client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'none', maxRetries: 0 });
  });
  after(() => Promise.all([gateway.close(), upstream.close()]));

  it('chat, with reasoning, usage and request id', async () => {
    const completion = await client.chat.completions.create({ model: 'crystal-mini', messages: MESSAGES });
    const message = completion.choices[0]!.message as { content: string | null; reasoning?: string };
    assert.equal(message.content, ' Q1 iron =2 Q2 jay =4');
    assert.match(message.reasoning ?? '', /^ L3 iron 1 1/);
    assert.equal(completion.usage?.completion_tokens, 58);
    assert.match(completion._request_id ?? '', /^req-/);
  });

  it('streams, with the usage chunk and with the helper', async () => {
    const options = { include_usage: true };
    let text = '';
    let usage: number | undefined;
    for await (const chunk of await client.chat.completions.create({
      model: 'demo',
      messages: MESSAGES,
      stream: true,
      stream_options: options,
    })) {
      text += chunk.choices[0]?.delta.content ?? '';
      usage = chunk.usage?.completion_tokens ?? usage;
    }
    assert.deepEqual([text, usage], [' Q1 iron =2 Q2 jay =4', 58]);
    const stream = client.chat.completions.stream({ model: 'demo', messages: MESSAGES, stream_options: options });
    assert.equal((await stream.finalChatCompletion()).choices[0]?.message.content, text);
  });

  it('logprobs to the last digit', async () => {
    const completion = await client.chat.completions.create({ model: 'demo', messages: MESSAGES, logprobs: true });
    assert.equal(completion.choices[0]?.logprobs?.content?.[0]?.logprob, -0.38836878538131714);
  });

  it('parallel tool calls, whole and streamed: order, index and ids stay', async () => {
    const tool = (name: string) => ({ type: 'function' as const, function: { name, parameters: { type: 'object' } } });
    const request = {
      model: 'demo',
      messages: MESSAGES,
      tools: [tool('get_weather'), tool('get_time')],
      tool_choice: 'required' as const,
    };
    const whole = (await client.chat.completions.create(request)).choices[0]!.message.tool_calls!;
    assert.equal(whole.length, 3);
    const ids: (string | undefined)[][] = [[], [], []];
    const order: number[] = [];
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
      for (const call of chunk.choices[0]?.delta.tool_calls ?? []) {
        ids[call.index]!.push(call.id);
        order.push(call.index);
      }
    }
    assert.deepEqual(order, order.toSorted());
    for (const [first, ...rest] of ids) {
      assert.match(first ?? '', /^chatcmpl-tool-/);
      assert.ok(rest.every((id) => id === undefined || id === null));
    }
    const helper = client.chat.completions.stream(request);
    assert.equal((await helper.finalChatCompletion()).choices[0]!.message.tool_calls!.length, 3);
  });

  it('structured outputs', async () => {
    const schema = { type: 'object', properties: { city: { type: 'string' } } };
    const format = { type: 'json_schema' as const, json_schema: { name: 'answer', schema } };
    const completion = await client.chat.completions.parse({
      model: 'demo',
      messages: MESSAGES,
      response_format: format,
    });
    assert.deepEqual(Object.keys(JSON.parse(completion.choices[0]!.message.content!)), ['city', 'degrees']);
  });

  it('completions, responses, embeddings and models', async () => {
    assert.equal(
      (await client.completions.create({ model: 'demo', prompt: 'x' })).choices[0]?.text,
      ' dog dog dog dog dog',
    );
    const kinds: string[] = [];
    for await (const event of await client.responses.create({ model: 'demo', input: 'x', stream: true }))
      kinds.push(event.type);
    assert.equal(kinds[0], 'response.created');
    assert.match(kinds.at(-1)!, /^response\.(completed|incomplete)$/);
    const { data } = await client.embeddings.create({ model: 'demo', input: 'x', encoding_format: 'float' });
    assert.ok(data[0]!.embedding.length > 16);
    assert.ok((await client.models.list()).data.some(({ id }) => id === 'crystal-mini'));
  });

  it('errors', async () => {
    const ask = (model: string, extra = {}) => client.chat.completions.create({ model, messages: MESSAGES, ...extra });
    await assert.rejects(
      ask('nope'),
      (error: unknown) => error instanceof NotFoundError && /`nope` does not exist/.test(error.message),
    );
    await assert.rejects(
      ask('demo', { temperature: -1 }),
      (error: unknown) => error instanceof BadRequestError && error.param === 'temperature',
    );
    await assert.rejects(
      ask('busy'),
      (error: unknown) => error instanceof RateLimitError && error.headers.get('retry-after') === '7',
    );
    await assert.rejects(
      async () => {
        for await (const _ of await client.chat.completions.create({
          model: 'breaks',
          messages: MESSAGES,
          stream: true,
        }));
      },
      (error: unknown) => error instanceof APIError && error.type === 'gateway_upstream_broken',
    );
  });

  it('aborts, waiting and streaming', async () => {
    const abort = new AbortController();
    const waiting = client.chat.completions.create({ model: 'hangs', messages: MESSAGES }, { signal: abort.signal });
    const count = upstream.received.length;
    await until(() => upstream.received.length > count, 'the backend has it');
    abort.abort();
    await assert.rejects(waiting);
    await until(() => upstream.received.at(-1)!.aborted, 'the backend sees it');
    for await (const _ of await client.chat.completions.create({ model: 'slow', messages: MESSAGES, stream: true }))
      break;
    await until(() => upstream.received.at(-1)!.aborted, 'the backend sees it');
  });
});
