import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ScriptedEngine } from './scripted-engine.ts';
import { readEvents, serve } from './serve.ts';
import { ids } from './tokenizer-folders.ts';

interface Completion {
  id: string;
  choices: { index: number; text: string; [key: string]: unknown }[];
  usage: Record<string, unknown>;
}

describe('a text completion', () => {
  it('has the fields of vLLM, and leaves the think tokens in the text, which goes on where the prompt ends', async () => {
    const { post } = await serve(new ScriptedEngine(() => ids('cat =3 </think> Q1 <eos>')));
    const response = await post('/v1/completions', { model: 'mini', prompt: 'L1 cat 1 2' });
    const { id, created, ...body } = (await response.json()) as Record<string, unknown>;
    assert.equal(id, `cmpl-${response.headers.get('x-request-id')}`);
    assert.ok(Number.isInteger(created));
    assert.deepEqual(body, {
      object: 'text_completion',
      model: 'mini',
      choices: [
        {
          index: 0,
          text: ' cat =3 </think> Q1',
          logprobs: null,
          finish_reason: 'stop',
          stop_reason: null,
          prompt_token_ids: null,
          token_ids: null,
          prompt_logprobs: null,
        },
      ],
      service_tier: null,
      system_fingerprint: null,
      usage: { prompt_tokens: 4, total_tokens: 9, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 0 } },
      kv_transfer_params: null,
    });
  });

  it('takes a string, strings, token ids and lists of token ids', async () => {
    const engine = new ScriptedEngine(() => ids('cat <eos>'));
    const { post } = await serve(engine);
    const ask = async (prompt: unknown, n = 1) =>
      (await (await post('/v1/completions', { prompt, n })).json()) as Completion;
    await ask('L1 cat');
    await ask(ids('L1 dog'));
    const two = await ask(['L2 cat', 'L3 cat dog'], 2);
    await ask([ids('L2 dog'), ids('L3 dog')]);
    assert.deepEqual(
      engine.requests.map((request) => request.promptTokenIds),
      ['L1 cat', 'L1 dog', 'L2 cat', 'L2 cat', 'L3 cat dog', 'L3 cat dog', 'L2 dog', 'L3 dog'].map(ids),
    );
    assert.deepEqual(
      two.choices.map((choice) => choice.index),
      [0, 1, 2, 3],
    );
    assert.equal(two.usage['prompt_tokens'], 5);
    assert.equal(two.usage['completion_tokens'], 8);
  });

  it('generates 16 tokens by default, or fewer where the model ends', async () => {
    const engine = new ScriptedEngine(() => ids('cat <eos>'), { maxModelLength: 20 });
    const { post } = await serve(engine);
    await post('/v1/completions', { prompt: 'L1 cat' });
    await post('/v1/completions', { prompt: 'L1 cat 1 2 : L1 cat 1 2 :' });
    assert.deepEqual(
      engine.requests.map((request) => request.sampling.maxTokens),
      [16, 10],
    );
  });

  it('echoes the prompt before its text, streaming too', async () => {
    const { post } = await serve(new ScriptedEngine(() => ids('dog =3 <eos>')));
    const prompt = ['L1 cat', 'L2 cat'];
    const whole = (await (await post('/v1/completions', { prompt, echo: true })).json()) as Completion;
    assert.deepEqual(
      whole.choices.map((choice) => choice.text),
      ['L1 cat dog =3', 'L2 cat dog =3'],
    );
    const events = await readEvents(await post('/v1/completions', { prompt, echo: true, stream: true }));
    const texts = ['', ''];
    for (const event of events.slice(0, -1) as Completion[]) {
      for (const choice of event.choices) texts[choice.index] += choice.text;
    }
    assert.deepEqual(texts, ['L1 cat dog =3', 'L2 cat dog =3']);
  });

  it('streams text, then usage when asked', async () => {
    const { post } = await serve(new ScriptedEngine(() => ids('cat =3 <eos>')));
    const body = { prompt: 'L1', stream: true, stream_options: { include_usage: true } };
    const events = (await readEvents(await post('/v1/completions', body))) as Completion[];
    assert.deepEqual(
      events.slice(0, -2).map((event) => event.choices[0]?.text),
      [' cat', ' =3', ''],
    );
    assert.equal(events.at(-3)?.choices[0]?.['finish_reason'], 'stop');
    assert.deepEqual(events.at(-2)?.choices, []);
    assert.equal(events.at(-2)?.usage['completion_tokens'], 3);
    assert.equal(events.at(-1), '[DONE]');
  });

  it('reports log probabilities in parallel lists, with places in the text', async () => {
    const { post } = await serve(new ScriptedEngine(() => ids('cat =3 <eos>')));
    const body = (await (await post('/v1/completions', { prompt: 'L1', logprobs: 2 })).json()) as Completion;
    const two = { '6': -1, '7': -2 };
    assert.deepEqual(body.choices[0]?.['logprobs'], {
      text_offset: [0, 4, 7],
      token_logprobs: [-0.5, -0.5, -0.5],
      tokens: ['cat', '=3', '<eos>'],
      top_logprobs: [
        { cat: -0.5, ...two },
        { '=3': -0.5, ...two },
        { '<eos>': -0.5, ...two },
      ],
    });
  });
});
