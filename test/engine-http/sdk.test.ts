import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import OpenAI from 'openai';
import { ScriptedEngine } from './scripted-engine.ts';
import { eventually, serve } from './serve.ts';
import { ids } from './tokenizer-folders.ts';

const ANSWER = 'L1 cat =3 ; </think> Q1 cat =3 <eos>';
const messages = [{ role: 'user' as const, content: 'L1 cat 1 2 : Q1 cat' }];
const model = 'mini';

async function connect(engine: ScriptedEngine): Promise<OpenAI> {
  const { url } = await serve(engine);
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
}

describe('the official SDK', () => {
  it('gets a chat completion', async () => {
    const client = await connect(new ScriptedEngine(() => ids(ANSWER)));
    const completion = await client.chat.completions.create({ model, messages });
    const message = completion.choices[0]!.message as { content: string | null; reasoning?: string };
    assert.equal(message.content, 'Q1 cat =3');
    assert.equal(message.reasoning, 'L1 cat =3 ;');
    assert.equal(completion.usage?.completion_tokens, 9);
    assert.equal(completion.id, `chatcmpl-${completion._request_id}`);
  });

  it('streams a chat completion with usage', async () => {
    const client = await connect(new ScriptedEngine(() => ids(ANSWER)));
    const stream_options = { include_usage: true };
    const stream = await client.chat.completions.create({ model, messages, stream: true, stream_options });
    let content = '';
    let reasoning = '';
    let tokens: number | undefined;
    for await (const chunk of stream) {
      const delta = chunk.choices[0]?.delta as { content?: string; reasoning?: string } | undefined;
      content += delta?.content ?? '';
      reasoning += delta?.reasoning ?? '';
      tokens = chunk.usage?.total_tokens ?? tokens;
    }
    assert.equal(content, 'Q1 cat =3');
    assert.equal(reasoning, 'L1 cat =3 ;');
    assert.equal(tokens, 20);
  });

  it('accumulates a stream with its helper', async () => {
    const client = await connect(new ScriptedEngine(() => ids(ANSWER)));
    const completion = await client.chat.completions.stream({ model, messages, n: 2 }).finalChatCompletion();
    assert.deepEqual(
      completion.choices.map((choice) => [choice.message.content, choice.finish_reason]),
      [
        ['Q1 cat =3', 'stop'],
        ['Q1 cat =3', 'stop'],
      ],
    );
  });

  it('aborts the engine when it stops reading a stream', async () => {
    const engine = new ScriptedEngine(() => ids('cat dog'));
    const client = await connect(engine);
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta !== undefined) break;
    }
    await eventually(() => engine.aborted.length === 1 && engine.running === 0, 'the engine hears of it');
  });

  it('throws its own errors', async () => {
    const engine = new ScriptedEngine(() => ids('cat dog'));
    const client = await connect(engine);
    const unknownWord = [{ role: 'user' as const, content: 'zebra' }];
    await assert.rejects(client.chat.completions.create({ model, messages: unknownWord }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.match(error.message, /"zebra" is not in the vocabulary/);
      return true;
    });
    await assert.rejects(client.chat.completions.create({ model: 'gpt', messages }), OpenAI.NotFoundError);
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    await assert.rejects(
      async () => {
        for await (const chunk of stream) if (chunk.choices.length > 0) engine.fail(new Error('the worker died'));
      },
      (error) => error instanceof OpenAI.APIError && /before it was finished/.test(error.message),
    );
  });

  it('gets text completions and models', async () => {
    const client = await connect(new ScriptedEngine(() => ids('cat =3 <eos>')));
    const completion = await client.completions.create({ model, prompt: 'L1', logprobs: 1 });
    assert.equal(completion.choices[0]?.text, ' cat =3');
    assert.deepEqual(completion.choices[0]?.logprobs?.tokens, ['cat', '=3', '<eos>']);
    const stream = await client.completions.create({ model, prompt: 'L1', stream: true });
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]?.text ?? '';
    assert.equal(text, ' cat =3');
    assert.deepEqual(
      (await client.models.list()).data.map((card) => card.id),
      ['mini'],
    );
  });
});
