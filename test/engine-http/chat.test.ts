import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loadTokenizer } from '../../engine/http/tokenizer.ts';
import { ScriptedEngine } from './scripted-engine.ts';
import { readEvents, serve } from './serve.ts';
import { byteIds, ids, writeByteTokenizer } from './tokenizer-folders.ts';

const ANSWER = 'L1 cat =3 right ; </think> Q1 cat =3 <eos>';
const messages = [{ role: 'user', content: 'L1 cat 1 2 : Q1 cat' }];
const PROMPT = '<bos> <|user|> L1 cat 1 2 : Q1 cat <|assistant|> <think>';

type Chunk = { choices: { index: number; delta: Record<string, string>; [key: string]: unknown }[]; usage?: unknown };

/** The chunks of a stream without `[DONE]`, which is checked to be there once, at the end. */
async function readChunks(response: Response): Promise<Chunk[]> {
  const events = await readEvents(response);
  assert.equal(events.filter((event) => event === '[DONE]').length, 1);
  assert.equal(events.at(-1), '[DONE]');
  return events.slice(0, -1) as Chunk[];
}

/** The text of one choice in a stream. */
function textOf(chunks: Chunk[], key: 'reasoning' | 'content', index = 0): string {
  return chunks
    .flatMap((chunk) => chunk.choices)
    .filter((choice) => choice.index === index)
    .map((choice) => choice.delta[key] ?? '')
    .join('');
}

describe('a chat completion', () => {
  it('has the fields of vLLM, with reasoning apart from content', async () => {
    const engine = new ScriptedEngine(() => ids(ANSWER));
    engine.cachedTokens = 8;
    const { post } = await serve(engine);
    const response = await post('/v1/chat/completions', { model: 'mini', messages });
    assert.equal(response.status, 200);
    const { id, created, ...body } = (await response.json()) as Record<string, unknown>;
    assert.equal(id, `chatcmpl-${response.headers.get('x-request-id')}`);
    assert.ok(Number.isInteger(created));
    assert.deepEqual(body, {
      object: 'chat.completion',
      model: 'mini',
      choices: [
        {
          index: 0,
          message: {
            role: 'assistant',
            content: 'Q1 cat =3',
            refusal: null,
            annotations: null,
            audio: null,
            function_call: null,
            reasoning: 'L1 cat =3 right ;',
          },
          logprobs: null,
          finish_reason: 'stop',
          stop_reason: null,
          token_ids: null,
        },
      ],
      service_tier: null,
      system_fingerprint: null,
      usage: {
        prompt_tokens: 11,
        total_tokens: 21,
        completion_tokens: 10,
        prompt_tokens_details: { cached_tokens: 8 },
        completion_tokens_details: { reasoning_tokens: 5 },
      },
      prompt_logprobs: null,
      prompt_token_ids: null,
      kv_transfer_params: null,
    });
    assert.deepEqual(engine.requests[0]?.promptTokenIds, ids(PROMPT));
  });

  it('asks the engine for greedy sampling up to the length of the model by default', async () => {
    const engine = new ScriptedEngine(() => ids(ANSWER));
    const { post } = await serve(engine);
    await post('/v1/chat/completions', { messages });
    assert.deepEqual(engine.requests[0]?.sampling, {
      maxTokens: 64 - 11,
      temperature: 0,
      topP: 1,
      topK: 0,
      seed: undefined,
      ignoreEos: false,
      stopTokenIds: [],
      logprobs: undefined,
    });
    assert.deepEqual(engine.requests[0]?.cache, {
      crystalkvId: '',
      profile: '',
      budgetTokens: undefined,
      mode: undefined,
    });
  });

  it('passes sampling and cache options on', async () => {
    const engine = new ScriptedEngine(() => ids(ANSWER));
    const { post } = await serve(engine);
    const sampling = { max_tokens: 9, temperature: 0.5, top_p: 0.9, top_k: -1, ignore_eos: true, stop_token_ids: [8] };
    const vllm_xargs = {
      crystalkv_id: 'a-1',
      crystalkv_profile: 'tight',
      crystalkv_budget_tokens: 0,
      crystalkv_mode: 'shadow',
      other: ['x', 1],
    };
    await post('/v1/chat/completions', { messages, ...sampling, max_completion_tokens: 7, vllm_xargs });
    assert.deepEqual(engine.requests[0]?.sampling, {
      maxTokens: 7,
      temperature: 0.5,
      topP: 0.9,
      topK: 0,
      seed: undefined,
      ignoreEos: true,
      stopTokenIds: [8],
      logprobs: undefined,
    });
    const cache = { crystalkvId: 'a-1', profile: 'tight', budgetTokens: 0, mode: 'shadow' };
    assert.deepEqual(engine.requests[0]?.cache, cache);
  });

  it('joins text parts, and passes template variables on', async () => {
    const engine = new ScriptedEngine(() => ids('Q1 cat =3 <eos>'));
    const { post } = await serve(engine);
    const content = ['L1 cat 1 2 :', 'Q1 cat'].map((text) => ({ type: 'text', text }));
    const body = { messages: [{ role: 'user', content }], chat_template_kwargs: { thinking: false } };
    const answer = (await (await post('/v1/chat/completions', body)).json()) as {
      choices: { message: { content: string; reasoning: null } }[];
    };
    assert.deepEqual(engine.requests[0]?.promptTokenIds, ids(PROMPT).slice(0, -1));
    assert.equal(answer.choices[0]?.message.content, 'Q1 cat =3');
    assert.equal(answer.choices[0]?.message.reasoning, null);
  });

  it('gives n choices seeds that differ and repeat', async () => {
    const engine = new ScriptedEngine((request) => ids(`cat </think> Q1 cat =${request.choiceIndex} <eos>`));
    const { post } = await serve(engine);
    const ask = async () => (await post('/v1/chat/completions', { messages, n: 3, seed: 7, temperature: 1 })).json();
    const { choices, usage } = (await ask()) as {
      choices: { index: number; message: { content: string } }[];
      usage: { prompt_tokens: number; completion_tokens: number };
    };
    assert.deepEqual(
      choices.map(({ index, message }) => [index, message.content]),
      [0, 1, 2].map((index) => [index, `Q1 cat =${index}`]),
    );
    assert.equal(usage.prompt_tokens, 11);
    assert.equal(usage.completion_tokens, 18);
    await ask();
    const seeds = engine.requests.map((request) => request.sampling.seed);
    assert.equal(new Set(seeds.slice(0, 3)).size, 3);
    assert.deepEqual(seeds.slice(3), seeds.slice(0, 3));
    assert.equal(new Set(engine.requests.map((request) => request.id)).size, 6);
  });

  it('tells why it ended: length, a stop token, or a stop string that is cut off', async () => {
    const engine = new ScriptedEngine(() => ids(ANSWER));
    const { post } = await serve(engine);
    const ask = async (options: object) => {
      const body = await (await post('/v1/chat/completions', { messages, ...options })).json();
      const { message, finish_reason, stop_reason } = (body as { choices: Record<string, unknown>[] }).choices[0]!;
      const { reasoning, content } = message as Record<string, unknown>;
      return [reasoning, content, finish_reason, stop_reason];
    };
    assert.deepEqual(await ask({ max_tokens: 3 }), ['L1 cat =3', null, 'length', null]);
    const semicolon = ids(';')[0]!;
    assert.deepEqual(await ask({ stop_token_ids: [semicolon] }), ['L1 cat =3 right', null, 'stop', semicolon]);
    assert.deepEqual(await ask({ stop: 't =3 ri' }), ['L1 ca', null, 'stop', 't =3 ri']);
    assert.deepEqual(await ask({ stop: ['zzz', '</think>'] }), ['L1 cat =3 right ;', null, 'stop', '</think>']);
    assert.deepEqual(await ask({ stop: ['Q1'] }), ['L1 cat =3 right ;', null, 'stop', 'Q1']);
    assert.deepEqual(await ask({ stop: 'cat =', include_stop_str_in_output: true }), [
      'L1 cat =',
      null,
      'stop',
      'cat =',
    ]);
    assert.deepEqual(await ask({ stop: ';never' }), ['L1 cat =3 right ;', 'Q1 cat =3', 'stop', null]);
  });

  it('stops the engine at a stop string, and counts the tokens up to it', async () => {
    const engine = new ScriptedEngine(() => ids('L1 cat =3 right ;'));
    const { post } = await serve(engine);
    const body = (await (await post('/v1/chat/completions', { messages, stop: 'right' })).json()) as {
      usage: { completion_tokens: number };
    };
    assert.equal(engine.aborted.length, 1);
    assert.equal(body.usage.completion_tokens, 4);
  });

  it('reports log probabilities and token ids', async () => {
    const engine = new ScriptedEngine(() => ids('cat </think> dog <eos>'));
    const { post } = await serve(engine);
    const options = { logprobs: true, top_logprobs: 1, return_token_ids: true };
    const body = (await (await post('/v1/chat/completions', { messages, ...options })).json()) as {
      prompt_token_ids: number[];
      choices: { token_ids: number[]; logprobs: { content: object[] } }[];
    };
    assert.deepEqual(body.prompt_token_ids, ids(PROMPT));
    assert.deepEqual(body.choices[0]?.token_ids, ids('cat </think> dog <eos>'));
    const top = { token: '6', logprob: -1, bytes: [54] };
    assert.equal(body.choices[0]?.logprobs.content.length, 4);
    const first = { token: 'cat', logprob: -0.5, bytes: [99, 97, 116], top_logprobs: [top] };
    assert.deepEqual(body.choices[0]?.logprobs.content[0], first);
  });
});

describe('a streamed chat completion', () => {
  it('sends the role, then reasoning, then content, then the end', async () => {
    const { post } = await serve(new ScriptedEngine(() => ids('cat ; </think> Q1 =3 <eos>')));
    const response = await post('/v1/chat/completions', { messages, stream: true });
    assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/);
    const chunks = await readChunks(response);
    const seen = chunks.map(({ choices }) => choices[0]);
    const middle = { index: 0, logprobs: null, finish_reason: null, token_ids: null };
    assert.deepEqual(seen, [
      { index: 0, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null },
      { ...middle, delta: { reasoning: 'cat' } },
      { ...middle, delta: { reasoning: ' ;' } },
      { ...middle, delta: { content: 'Q1' } },
      { ...middle, delta: { content: ' =3' } },
      { ...middle, delta: {}, finish_reason: 'stop', stop_reason: null },
    ]);
    assert.ok(chunks.every((chunk) => !('usage' in chunk)));
    const heads = chunks.map((chunk) => JSON.stringify({ ...chunk, choices: [], prompt_token_ids: undefined }));
    assert.equal(new Set(heads).size, 1);
  });

  it('ends with a chunk of usage when asked, and tells it in every chunk when asked', async () => {
    const { post } = await serve(new ScriptedEngine(() => ids('cat </think> Q1 <eos>')));
    const options = { include_usage: true, continuous_usage_stats: true };
    const chunks = await readChunks(
      await post('/v1/chat/completions', { messages, stream: true, stream_options: options }),
    );
    const last = chunks.at(-1);
    assert.deepEqual(last?.choices, []);
    assert.deepEqual(last?.usage, {
      prompt_tokens: 11,
      total_tokens: 15,
      completion_tokens: 4,
      prompt_tokens_details: { cached_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 1 },
    });
    const running = chunks
      .slice(0, -1)
      .map((chunk) => (chunk.usage as { completion_tokens: number }).completion_tokens);
    assert.equal(running[0], 1);
    assert.deepEqual(
      running,
      [...running].sort((a, b) => a - b),
    );
  });

  it('never shows the beginning of a stop string', async () => {
    const { post } = await serve(new ScriptedEngine(() => ids('cat </think> Q1 cat =3 right ; <eos>')));
    const chunks = await readChunks(await post('/v1/chat/completions', { messages, stream: true, stop: 'at =3 r' }));
    assert.equal(textOf(chunks, 'content'), 'Q1 c');
    const end = chunks.at(-1)?.choices[0];
    assert.equal(end?.['finish_reason'], 'stop');
    assert.equal(end?.['stop_reason'], 'at =3 r');
  });

  it('interleaves choices, each with its role and its end', async () => {
    const engine = new ScriptedEngine((request) => ids(`cat </think> =${request.choiceIndex} dog <eos>`));
    const { post } = await serve(engine);
    const chunks = await readChunks(await post('/v1/chat/completions', { messages, stream: true, n: 2 }));
    for (const index of [0, 1]) {
      const own = chunks.filter((chunk) => chunk.choices[0]?.index === index);
      assert.deepEqual(own[0]?.choices[0]?.delta, { role: 'assistant', content: '' });
      assert.equal(textOf(chunks, 'reasoning', index), 'cat');
      assert.equal(textOf(chunks, 'content', index), `=${index} dog`);
      assert.deepEqual(own.map((chunk) => chunk.choices[0]?.['finish_reason']).filter(Boolean), ['stop']);
    }
  });

  it('gives every token id and log probability once, the prompt in the first chunk', async () => {
    const { post } = await serve(new ScriptedEngine(() => ids('cat </think> Q1 =3 <eos>')));
    const options = { stream: true, return_token_ids: true, logprobs: true, stop: 'cats' };
    const chunks = await readChunks(await post('/v1/chat/completions', { messages, ...options }));
    assert.deepEqual((chunks[0] as unknown as { prompt_token_ids: number[] }).prompt_token_ids, ids(PROMPT));
    const rest = chunks.slice(1).map((chunk) => chunk.choices[0]);
    assert.deepEqual(
      rest.flatMap((choice) => choice?.['token_ids'] as number[]),
      ids('cat </think> Q1 =3 <eos>'),
    );
    const logprobs = rest.flatMap((choice) => (choice!['logprobs'] as { content: { token: string }[] }).content);
    assert.deepEqual(
      logprobs.map((entry) => entry.token),
      ['cat', '</think>', 'Q1', '=3', '<eos>'],
    );
  });

  it('hides reasoning when asked, in token ids and log probabilities too', async () => {
    const { post } = await serve(new ScriptedEngine(() => ids('cat </think> Q1 <eos>')));
    const options = { stream: true, include_reasoning: false, return_token_ids: true, logprobs: true };
    const response = await post('/v1/chat/completions', { messages, ...options });
    const text = await response.clone().text();
    const chunks = await readChunks(response);
    assert.equal(textOf(chunks, 'content'), 'Q1');
    assert.doesNotMatch(text, /"reasoning":|"content":\[/);
  });

  it('never sends half a character', async () => {
    const tokenizer = loadTokenizer(writeByteTokenizer());
    const engine = new ScriptedEngine(() => [...byteIds('\u00e9\u{1f600}'), 2], {
      vocabSize: 262,
      maxModelLength: 200,
    });
    const { post } = await serve(engine, { tokenizer });
    const chunks = await readChunks(await post('/v1/chat/completions', { messages, stream: true }));
    const deltas = chunks.map((chunk) => chunk.choices[0]?.delta['content']).filter(Boolean);
    assert.deepEqual(deltas, ['\u00e9', '\u{1f600}']);
  });
});
