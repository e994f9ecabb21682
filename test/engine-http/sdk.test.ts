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

  it('gets a response', async () => {
    const client = await connect(new ScriptedEngine(() => ids(ANSWER)));
    const response = await client.responses.create({ model, input: 'L1 cat 1 2 : Q1 cat' });
    assert.equal(response.output_text, 'Q1 cat =3');
    assert.deepEqual([response.status, response.object], ['completed', 'response']);
    assert.equal(response.id, `resp_${response._request_id}`);
    const [reasoning, message] = response.output;
    assert.ok(reasoning?.type === 'reasoning' && message?.type === 'message');
    assert.deepEqual(reasoning.content, [{ type: 'reasoning_text', text: 'L1 cat =3 ;' }]);
    assert.equal(response.usage?.output_tokens, 9);
    assert.equal(response.usage?.input_tokens, 11);
    assert.ok((response.usage?.output_tokens_details.reasoning_tokens ?? 0) > 0);
    const short = await client.responses.create({ model, input: messages, max_output_tokens: 3 });
    assert.equal(short.max_output_tokens, 3);
  });

  it('streams a response in events that its helper understands', async () => {
    const client = await connect(new ScriptedEngine(() => ids(ANSWER)));
    const types: string[] = [];
    let count = 0;
    const stream = client.responses.stream({ model, input: messages });
    for await (const event of stream) {
      assert.equal(event.sequence_number, count);
      count += 1;
      if (types.at(-1) !== event.type) types.push(event.type);
    }
    assert.deepEqual(types, [
      ...['response.created', 'response.in_progress'],
      ...['response.output_item.added', 'response.content_part.added', 'response.reasoning_text.delta'],
      ...['response.reasoning_text.done', 'response.content_part.done', 'response.output_item.done'],
      ...['response.output_item.added', 'response.content_part.added', 'response.output_text.delta'],
      ...['response.output_text.done', 'response.content_part.done', 'response.output_item.done'],
      'response.completed',
    ]);
    assert.equal((await stream.finalResponse()).output_text, 'Q1 cat =3');
  });

  it('is told when a response breaks off', async () => {
    const engine = new ScriptedEngine(() => ids('cat dog'));
    const client = await connect(engine);
    const stream = await client.responses.create({ model, input: messages, stream: true });
    const seen: string[] = [];
    await assert.rejects(
      async () => {
        for await (const event of stream) {
          seen.push(event.type);
          if (event.type === 'response.output_item.added') engine.fail(new Error('the worker died'));
          if (event.type === 'error') throw new Error(event.message);
        }
      },
      (error) => error instanceof Error && /before it was finished/.test(error.message),
    );
    assert.ok(!seen.includes('response.completed'));
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
