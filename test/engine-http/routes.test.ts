import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ScriptedEngine } from './scripted-engine.ts';
import { serve } from './serve.ts';
import { ids } from './tokenizer-folders.ts';

const engine = new ScriptedEngine(() => ids('cat <eos>'));
const served = serve(engine, { bodyLimit: 2000 });
const get = async (path: string, init: RequestInit = {}) => fetch(`${(await served).url}${path}`, init);
const post = async (path: string, body: unknown, headers = {}) => (await served).post(path, body, headers);
const errorOf = async (response: Response) => ((await response.json()) as { error: Record<string, unknown> }).error;
const messages = [{ role: 'user', content: 'Q1 cat' }];

describe('the routes', () => {
  it('list the one model, and know it by its name', async () => {
    const list = (await (await get('/v1/models')).json()) as { object: string; data: Record<string, unknown>[] };
    assert.equal(list.object, 'list');
    const { created, ...card } = list.data[0]!;
    assert.ok(Number.isInteger(created));
    assert.deepEqual(card, {
      id: 'mini',
      object: 'model',
      owned_by: 'crystal-kv',
      root: 'mini',
      parent: null,
      max_model_len: 64,
      permission: [],
    });
    assert.deepEqual(await (await get('/v1/models/mini')).json(), list.data[0]);
  });

  it('answer 404 for another model', async () => {
    const expected = { message: 'The model `gpt` does not exist.', type: 'NotFoundError', param: 'model', code: 404 };
    for (const response of [
      await get('/v1/models/gpt'),
      await post('/v1/completions', { model: 'gpt', prompt: 'cat' }),
    ]) {
      assert.equal(response.status, 404);
      assert.deepEqual(await errorOf(response), expected);
    }
  });

  it('tokenize prompts and messages, and detokenize', async () => {
    const prompt = (await (await post('/tokenize', { prompt: 'L1 cat', return_token_strs: true })).json()) as unknown;
    assert.deepEqual(prompt, { count: 2, max_model_len: 64, tokens: ids('L1 cat'), token_strs: ['L1', 'cat'] });
    const chat = (await (await post('/tokenize', { messages, add_generation_prompt: false })).json()) as {
      tokens: number[];
      token_strs: null;
    };
    assert.deepEqual(chat.tokens, ids('<bos> <|user|> Q1 cat'));
    assert.equal(chat.token_strs, null);
    const text = await (await post('/detokenize', { tokens: ids('<bos> cat') })).json();
    assert.deepEqual(text, { prompt: '<bos> cat' });
    assert.match(
      `${(await errorOf(await post('/detokenize', { tokens: [100] })))['message']}`,
      /token ids go from 0 to 99/,
    );
    assert.match(`${(await errorOf(await post('/tokenize', { prompt: 'zebra' })))['message']}`, /^"zebra" is not in/);
  });

  it('tell health and version', async () => {
    const health = await get('/health');
    assert.equal(health.status, 200);
    assert.equal(await health.text(), '');
    assert.equal((await post('/ping', '')).status, 200);
    assert.deepEqual(await (await get('/version')).json(), { version: '1.2.3' });
  });

  it('answer unknown paths and methods in the shape of vLLM', async () => {
    const lost = await get('/v1/nothing');
    assert.equal(lost.status, 404);
    assert.deepEqual(await errorOf(lost), { message: 'Not Found', type: 'Not Found', param: null, code: 404 });
    const wrong = await get('/v1/chat/completions');
    assert.equal(wrong.status, 405);
    assert.equal(wrong.headers.get('allow'), 'POST');
    assert.equal((await errorOf(wrong))['type'], 'Method Not Allowed');
    assert.equal((await get('/v1/models', { method: 'HEAD' })).status, 200);
    const options = await get('/v1/models', { method: 'OPTIONS' });
    assert.equal(options.status, 204);
    assert.equal(options.headers.get('allow'), 'GET, HEAD');
  });

  it('refuse bodies that are too large, not JSON, or not an object', async () => {
    const large = await post('/v1/completions', { prompt: 'cat '.repeat(1000) });
    assert.equal(large.status, 413);
    assert.equal((await errorOf(large))['code'], 413);
    const broken = await post('/v1/completions', '{"prompt": ');
    assert.equal(broken.status, 400);
    assert.match(`${(await errorOf(broken))['message']}`, /^The body is not valid JSON/);
    const form = await post('/v1/completions', 'prompt=cat', { 'content-type': 'application/x-www-form-urlencoded' });
    assert.equal(form.status, 400);
    assert.match(`${(await errorOf(form))['message']}`, /Only 'application\/json' is allowed/);
    assert.equal((await post('/v1/completions', [1])).status, 400);
    assert.equal((await get('/v1/completions', { method: 'POST' })).status, 400);
  });

  it('return the request id of the client, or one of their own', async () => {
    const named = await post('/v1/chat/completions', { messages }, { 'x-request-id': 'abc-1' });
    assert.equal(named.headers.get('x-request-id'), 'abc-1');
    assert.equal(((await named.json()) as { id: string }).id, 'chatcmpl-abc-1');
    const inBody = await post('/v1/chat/completions', { messages, request_id: 'from-body' });
    assert.equal(((await inBody.json()) as { id: string }).id, 'chatcmpl-from-body');
    const strange = await post('/v1/chat/completions', { messages }, { 'x-request-id': 'a b' });
    assert.match(strange.headers.get('x-request-id') ?? '', /^[0-9a-f]{32}$/);
    const error = await post('/v1/chat/completions', { n: 0 }, { 'x-request-id': 'abc-2' });
    assert.equal(error.headers.get('x-request-id'), 'abc-2');
  });
});

describe('the metrics', () => {
  it('have the names and labels of vLLM, with the values of the moment', async () => {
    const own = new ScriptedEngine(() => ids('cat dog <eos>'));
    const { url, post: ask } = await serve(own);
    await (await ask('/v1/chat/completions', { messages })).text();
    await (await ask('/v1/chat/completions', { messages, max_tokens: 1, n: 2 })).text();
    await (await ask('/v1/chat/completions', { messages, stop: 'dog' })).text();
    own.figures = { ...own.figures, running: 3, waiting: 2, freeBlocks: 25, preemptions: 4, generatedTokens: 50 };
    own.figures.policy = { ...own.figures.policy, connected: true, missedSteps: 7 };
    own.figures.policy.rejected.stale_epoch = 5;
    const scrape = async () => (await fetch(`${url}/metrics`)).text();
    await scrape();
    const text = await scrape();
    const value = (name: string, labels = '') => {
      const line = new RegExp(`^${name}{${labels}model_name="mini",engine="0"} (.*)$`, 'm').exec(text);
      return line === null ? undefined : Number(line[1]);
    };
    assert.equal(value('vllm:num_requests_running'), 3);
    assert.equal(value('vllm:num_requests_waiting'), 2);
    assert.equal(value('vllm:kv_cache_usage_perc'), 0.75);
    assert.equal(value('vllm:num_preemptions_total'), 4);
    assert.equal(value('vllm:generation_tokens_total'), 50);
    for (const name of ['prompt_tokens_total', 'prefix_cache_queries_total', 'prefix_cache_hits_total']) {
      assert.equal(value(`vllm:${name}`), 0, name);
    }
    assert.equal(value('vllm:request_success_total', 'finished_reason="stop",'), 2);
    assert.equal(value('vllm:request_success_total', 'finished_reason="length",'), 2);
    assert.equal(value('vllm:request_success_total', 'finished_reason="abort",'), 0);
    assert.equal(value('vllm:time_to_first_token_seconds_count'), 4);
    assert.equal(value('vllm:inter_token_latency_seconds_count'), 3);
    assert.equal(value('vllm:e2e_request_latency_seconds_count'), 4);
    assert.equal(value('crystalkv_engine_missed_steps_total'), 7);
    assert.equal(value('crystalkv_engine_stream_up'), 1);
    assert.equal(value('crystalkv_engine_rejected_blocks_total', 'reason="stale_epoch",'), 5);
    assert.equal(value('crystalkv_engine_kv_block_bytes'), 4096);
  });
});
