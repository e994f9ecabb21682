import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import OpenAI, { APIConnectionError, APIError, BadRequestError } from 'openai';
import { until } from '../support/until.ts';
import { setup } from './harness.ts';
import { cut, hang, hangAfter, json, type Script, stream } from './upstream.ts';

const chunk = (content: string) =>
  `data: ${JSON.stringify({ id: 'x', object: 'chat.completion.chunk', choices: [{ index: 0, delta: { content } }] })}\n\n`;
const EVENTS = [chunk('Grüße, '), chunk('日本'), 'data: [DONE]\n\n'];
const COMPLETION = JSON.stringify({
  id: 'x',
  object: 'chat.completion',
  choices: [{ index: 0, message: { role: 'assistant', content: 'hi', reasoning: 'so' }, finish_reason: 'stop' }],
});
const REQUEST = { model: 'm', messages: [{ role: 'user' as const, content: 'hello' }] };

async function client(t: TestContext, script: Script) {
  const { gateway, upstream } = await setup(t, script);
  const openai = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'key', maxRetries: 0 });
  return { openai, upstream };
}

describe('the official SDK', () => {
  it('gets a completion, fields beyond OpenAI’s and the request id', async (t) => {
    const { openai, upstream } = await client(t, json(COMPLETION));
    const completion = await openai.chat.completions.create(REQUEST);
    const message = completion.choices[0]?.message as { content?: string; reasoning?: string } | undefined;
    assert.deepEqual([message?.content, message?.reasoning], ['hi', 'so']);
    assert.equal(completion._request_id, upstream.received[0]!.headers['x-request-id']);
    assert.equal(upstream.received[0]!.headers.authorization, 'Bearer key');
  });

  it('streams', async (t) => {
    const { openai } = await client(t, stream(EVENTS));
    let text = '';
    for await (const part of await openai.chat.completions.create({ ...REQUEST, stream: true })) {
      text += part.choices[0]?.delta.content ?? '';
    }
    assert.equal(text, 'Grüße, 日本');
  });

  it('sends the crystal_kv option as an extra field', async (t) => {
    const { openai, upstream } = await client(t, json(COMPLETION));
    const extra = { crystal_kv: { budget_tokens: 256, mode: 'enforce' } };
    await openai.chat.completions.create({ ...REQUEST, ...extra });
    const sent = JSON.parse(upstream.received[0]!.body.toString());
    assert.equal(sent.crystal_kv, undefined);
    assert.equal(sent.vllm_xargs.crystalkv_budget_tokens, 256);
    assert.equal(sent.vllm_xargs.crystalkv_mode, 'enforce');
  });

  it('reads the gateway’s errors', async (t) => {
    const { openai } = await client(t, json(COMPLETION));
    const extra = { crystal_kv: { mode: 'on' } };
    await assert.rejects(openai.chat.completions.create({ ...REQUEST, ...extra }), (error: unknown) => {
      assert.ok(error instanceof BadRequestError);
      assert.equal(error.param, 'crystal_kv.mode');
      assert.equal(error.type, 'gateway_invalid_option');
      assert.match(error.requestID ?? '', /^req-/);
      return true;
    });
  });

  it('throws when the backend breaks off in mid-stream, in the middle of an event too', async (t) => {
    for (const pieces of [EVENTS.slice(0, 1), [EVENTS[0]!, 'data: {"cho']]) {
      const { openai } = await client(t, cut(pieces));
      const parts: string[] = [];
      await assert.rejects(
        async () => {
          for await (const part of await openai.chat.completions.create({ ...REQUEST, stream: true })) {
            parts.push(part.choices[0]?.delta.content ?? '');
          }
        },
        (error: unknown) => error instanceof APIError && error.type === 'gateway_upstream_broken',
      );
      assert.deepEqual(parts, ['Grüße, ']);
    }
  });

  it('throws when a completion breaks off', async (t) => {
    const { openai } = await client(t, cut(['{"id":'], 'application/json'));
    await assert.rejects(openai.chat.completions.create(REQUEST), (error: unknown) => error instanceof Error);
  });

  it('aborts the backend when it is aborted, waiting or streaming', async (t) => {
    const waiting = await client(t, hang);
    const abort = new AbortController();
    const answer = waiting.openai.chat.completions.create(REQUEST, { signal: abort.signal });
    await until(() => waiting.upstream.received[0], 'the backend has the request');
    abort.abort();
    await assert.rejects(answer);
    await until(() => waiting.upstream.received[0]!.aborted, 'the backend sees it');

    const streaming = await client(t, hangAfter(EVENTS.slice(0, 1)));
    for await (const _ of await streaming.openai.chat.completions.create({ ...REQUEST, stream: true })) break;
    await until(() => streaming.upstream.received[0]!.aborted, 'the backend sees it');
  });

  it('lists and retrieves models', async (t) => {
    const { openai, upstream } = await client(t, json('{"object":"list","data":[{"id":"org/m","object":"model"}]}'));
    assert.equal((await openai.models.list()).data[0]?.id, 'org/m');
    await openai.models.retrieve('org/m');
    assert.equal(upstream.received[1]!.url, '/v1/models/org%2Fm');
  });

  it('cannot connect once the gateway is closed', async (t) => {
    const { gateway } = await setup(t, json(COMPLETION));
    await gateway.close();
    const openai = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'key', maxRetries: 0 });
    await assert.rejects(openai.models.list(), APIConnectionError);
  });
});
