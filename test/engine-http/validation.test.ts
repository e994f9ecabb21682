import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ScriptedEngine } from './scripted-engine.ts';
import { serve } from './serve.ts';
import { ids } from './tokenizer-folders.ts';

const messages = [{ role: 'user', content: 'Q1 cat' }];
const withContent = (content: unknown) => ({ messages: [{ role: 'user', content }] });
const xargs = (values: object) => ({ vllm_xargs: values });

/** Fields that a chat completion refuses; the field the error names, and what its message says. */
const REFUSED: [options: object, param: string, message: RegExp][] = [
  [{ temperature: -1 }, 'temperature', /^temperature is -1: must be a number of at least 0$/],
  [{ temperature: 'hot' }, 'temperature', /^temperature is "hot": must be a number of at least 0$/],
  [{ top_p: 0 }, 'top_p', /^top_p is 0: must be a number above 0, at most 1$/],
  [{ top_p: 1.5 }, 'top_p', /^top_p is 1.5: must be a number above 0, at most 1$/],
  [{ top_k: -2 }, 'top_k', /^top_k is -2: must be an integer of at least -1$/],
  [{ max_tokens: 0 }, 'max_tokens', /^max_tokens is 0: must be an integer of at least 1$/],
  [{ max_completion_tokens: 1.5 }, 'max_completion_tokens', /is 1.5: must be an integer of at least 1$/],
  [{ n: 0 }, 'n', /^n is 0: must be an integer from 1 to 128$/],
  [{ n: 129 }, 'n', /^n is 129: must be an integer from 1 to 128$/],
  [{ seed: 0.5 }, 'seed', /^seed is 0.5: must be an integer of 64 bits, from -2\^63 to 2\^63 - 1$/],
  [
    { stop: ['a', 'b', 'c', 'd', 'e'] },
    'stop',
    /^stop is \["a","b","c","d","e"\]: must be a string or up to 4 strings/,
  ],
  [{ stop: '' }, 'stop', /^stop is "": .* each of at least 1 character$/],
  [{ stop_token_ids: [-1] }, 'stop_token_ids[0]', /^stop_token_ids\[0\] is -1: must be an integer of at least 0$/],
  [{ logprobs: 1 }, 'logprobs', /^logprobs is 1: must be true or false$/],
  [{ logprobs: true, top_logprobs: 21 }, 'top_logprobs', /^top_logprobs is 21: must be an integer from 0 to 20$/],
  [{ top_logprobs: 2 }, 'top_logprobs', /^top_logprobs is 2: logprobs must be true with it$/],
  [{ stream: 'yes' }, 'stream', /^stream is "yes": must be true or false$/],
  [{ stream_options: { include_usage: true } }, 'stream_options', /only be defined when `stream=True`/],
  [{ messages: [] }, 'messages', /^messages is \[\]: must hold at least 1 message$/],
  [{ messages: 'Q1' }, 'messages', /^messages is "Q1": must be a list of messages$/],
  [{ messages: [{ content: 'Q1' }] }, 'messages[0].role', /^messages\[0\].role is missing: must be a string/],
  [withContent(7), 'messages[0].content', /is 7: must be a string or a list of text parts$/],
  [
    withContent([{ type: 'image_url', image_url: {} }]),
    'messages[0].content[0].type',
    /^messages\[0\].content\[0\].type is "image_url": must be "text": this model reads text only/,
  ],
  [{ messages: [{ role: 'pirate', content: 'Q1' }] }, 'messages', /cannot be rendered: roles are user and assistant/],
  [withContent('Q1 zebra'), 'messages', /^"zebra" is not in the vocabulary.*register programs.*"L3 ant 2 5 : L2 bee/],
  [xargs({ crystalkv_id: 5 }), 'vllm_xargs.crystalkv_id', /crystalkv_id is 5: must be a string$/],
  [xargs({ crystalkv_id: true }), 'vllm_xargs.crystalkv_id', /crystalkv_id is 1: must be a string$/],
  [xargs({ crystalkv_mode: 'on' }), 'vllm_xargs.crystalkv_mode', /is "on": must be "enforce", "shadow" or "off"$/],
  [xargs({ crystalkv_budget_tokens: -1 }), 'vllm_xargs.crystalkv_budget_tokens', /integer from 0 to 4294967295$/],
  [xargs({ crystalkv_budget_tokens: '5' }), 'vllm_xargs.crystalkv_budget_tokens', /is "5": must be an integer/],
  [xargs({ other: { a: 1 } }), 'vllm_xargs.other', /is {"a":1}: must be a string, a number or a list of them$/],
  [xargs({ other: [null] }), 'vllm_xargs.other', /must be a string, a number or a list of them$/],
  [{ vllm_xargs: 'x' }, 'vllm_xargs', /^vllm_xargs is "x": must be an object$/],
  [{ tools: [{ type: 'function' }] }, 'tools', /does not support it/],
  [{ response_format: { type: 'json_object' } }, 'response_format', /does not support it/],
  [{ presence_penalty: 1 }, 'presence_penalty', /^presence_penalty is 1: this engine does not support it/],
  [
    { max_tokens: 64 },
    'input_tokens',
    /^This model's maximum context length is 64 tokens. However, you requested 64 output tokens and your prompt contains 6 input tokens, for a total of 70 tokens/,
  ],
  [withContent(Array(80).fill('cat').join(' ')), 'input_tokens', /prompt contains 84 input tokens/],
];

describe('a request with a wrong field', () => {
  it('is refused with 400, naming field, value and bounds, and never reaches the engine', async () => {
    const engine = new ScriptedEngine(() => ids('cat <eos>'));
    const { post } = await serve(engine);
    for (const [options, param, message] of REFUSED) {
      const response = await post('/v1/chat/completions', { messages, ...options });
      const body = (await response.json()) as { error: Record<string, unknown> };
      assert.equal(response.status, 400, JSON.stringify(options));
      assert.deepEqual(Object.keys(body.error), ['message', 'type', 'param', 'code']);
      assert.match(`${body.error['message']}`, message);
      assert.equal(body.error['param'], param, JSON.stringify(options));
      assert.equal(body.error['type'], 'BadRequestError');
      assert.equal(body.error['code'], 400);
    }
    assert.equal(engine.requests.length, 0);
  });

  it('is taken when the field is unknown, null, or means nothing', async () => {
    const { post } = await serve(new ScriptedEngine(() => ids('cat <eos>')));
    const harmless = [
      { wish: 'unknown' },
      { temperature: null, stop: null, n: null, seed: null, vllm_xargs: null, stream_options: null, tools: null },
      { presence_penalty: 0, repetition_penalty: 1, logit_bias: {}, tools: [], response_format: { type: 'text' } },
      { vllm_xargs: { anything: 'goes', flags: [true, 1, 'x'], on: true } },
      { seed: 2 ** 62 },
      { messages: [...messages, { role: 'assistant' }, ...messages] },
    ];
    for (const options of harmless) {
      const response = await post('/v1/chat/completions', { messages, ...options });
      assert.equal(response.status, 200, JSON.stringify(options));
    }
  });

  it('reports several problems at once', async () => {
    const { post } = await serve(new ScriptedEngine(() => []));
    const body = await (await post('/v1/chat/completions', { messages, n: 0, top_p: 2 })).text();
    assert.match(body, /n is 0: .*; top_p is 2: /);
  });
});

describe('a text completion with a wrong field', () => {
  it('is refused with 400', async () => {
    const { post } = await serve(new ScriptedEngine(() => []));
    const refused: [object, RegExp][] = [
      [{}, /^prompt is missing: must be a string, a list of strings/],
      [{ prompt: '' }, /^prompt is empty/],
      [{ prompt: ['cat', [1]] }, /^prompt is \["cat",\[1\]\]: must be/],
      [{ prompt: [] }, /^prompt is \[\]: must be/],
      [{ prompt: [1, 100] }, /^prompt holds the token id 100, which is out of vocabulary: token ids go from 0 to 99$/],
      [{ prompt: 'cat', suffix: 'dog' }, /^suffix is "dog": this engine does not support it/],
      [{ prompt: 'cat', echo: true, logprobs: 1 }, /no log probabilities of prompts/],
      [{ messages }, /^messages is a chat: send messages to \/v1\/chat\/completions instead$/],
      [{ prompt: messages }, /^prompt is a chat: send messages/],
      [{ prompt: ['cat', 'dog'], n: 65 }, /2 prompts with n 65 are more than 128 choices/],
    ];
    for (const [body, message] of refused) {
      const response = await post('/v1/completions', body);
      assert.equal(response.status, 400, JSON.stringify(body));
      assert.match(((await response.json()) as { error: { message: string } }).error.message, message);
    }
  });
});

describe('a response with a wrong field', () => {
  it('is refused with 400', async () => {
    const { post } = await serve(new ScriptedEngine(() => []));
    const refused: [object, RegExp][] = [
      [{ input: undefined }, /^input is missing: must be a string or a list of messages/],
      [{ input: 'zebra' }, /^"zebra" is not in the vocabulary/],
      [{ max_output_tokens: 0 }, /^max_output_tokens is 0: must be an integer of at least 1$/],
      [{ previous_response_id: 'resp_1' }, /^previous_response_id is "resp_1": this engine remembers no responses/],
      [{ background: true }, /^background is true: this engine remembers no responses/],
      [{ tools: [{ type: 'function' }] }, /^tools is .*: this engine does not support it/],
      [
        { text: { format: { type: 'json_object' } } },
        /^text.format.type is "json_object": this engine writes plain text/,
      ],
    ];
    for (const [fields, message] of refused) {
      const response = await post('/v1/responses', { input: 'Q1 cat', ...fields });
      assert.equal(response.status, 400, JSON.stringify(fields));
      assert.match(((await response.json()) as { error: { message: string } }).error.message, message);
    }
  });
});
