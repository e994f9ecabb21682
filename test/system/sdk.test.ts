import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import OpenAI from 'openai';
import { makePrograms } from '../../bench/workload.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { CONFIG, metric, metricReaches } from './harness.ts';

const MODEL = 'crystal-mini';
const isZero = (value: number) => value === 0;

describe("OpenAI's own client through the gateway to the engine", () => {
  const [program] = makePrograms(11, 1, 12);
  assert.ok(program);
  const messages = [{ role: 'user' as const, content: program.prompt }];
  /** Longer than anything here waits for it. */
  const endless = { model: MODEL, max_tokens: 1800, ignore_eos: true };
  let cluster: Cluster;
  let openai: OpenAI;
  before(async () => {
    cluster = await startCluster({ config: CONFIG });
    openai = new OpenAI({ baseURL: `${cluster.gatewayUrl}/v1`, apiKey: 'unused', maxRetries: 0 });
  });
  after(() => cluster?.close());

  test('chat, whole', async () => {
    const completion = await openai.chat.completions.create({ model: MODEL, messages, temperature: 0 });
    assert.equal(completion.choices[0]?.message.content?.trim(), program.answer);
    assert.equal(completion.choices[0]?.finish_reason, 'stop');
    assert.ok(completion._request_id);
  });

  test('chat, streamed with usage', async () => {
    const stream = await openai.chat.completions.create({
      model: MODEL,
      messages,
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true },
    });
    let content = '';
    let generated = 0;
    for await (const chunk of stream) {
      content += chunk.choices[0]?.delta.content ?? '';
      generated = chunk.usage?.completion_tokens ?? generated;
    }
    assert.equal(content.trim(), program.answer);
    assert.ok(generated > 100);
  });

  test('completions, whole and streamed, are the same', async () => {
    const request = { model: MODEL, prompt: program.prompt, temperature: 0, max_tokens: 40 };
    const whole = await openai.completions.create(request);
    const [choice] = whole.choices;
    assert.ok(choice !== undefined && choice.text.length > 0);
    assert.equal(choice.finish_reason, 'length');
    assert.equal(whole.usage?.completion_tokens, 40);
    let text = '';
    for await (const chunk of await openai.completions.create({ ...request, stream: true })) {
      text += chunk.choices[0]?.text ?? '';
    }
    assert.equal(text, choice.text);
  });

  test('models', async () => {
    const models = await openai.models.list();
    assert.deepEqual(
      models.data.map((model) => model.id),
      [MODEL],
    );
    assert.equal((await openai.models.retrieve(MODEL)).id, MODEL);
  });

  test('errors are those that the client knows, and say what is wrong', async () => {
    const fails = async (request: Promise<unknown>, type: new (...args: never[]) => Error, message: RegExp) =>
      await assert.rejects(request, (error: unknown) => {
        assert.ok(error instanceof type, String(error));
        assert.match(error.message, message);
        return true;
      });
    const unknown = [{ role: 'user' as const, content: 'hello there' }];
    await fails(openai.chat.completions.create({ model: MODEL, messages: unknown }), OpenAI.BadRequestError, /hello/);
    await fails(openai.completions.create({ model: MODEL, prompt: 'hello' }), OpenAI.BadRequestError, /hello/);
    await fails(
      openai.chat.completions.create({ model: MODEL, messages, temperature: -1 }),
      OpenAI.BadRequestError,
      /temperature/,
    );
    await fails(openai.chat.completions.create({ model: 'nope', messages }), OpenAI.NotFoundError, /nope/);
    await fails(openai.models.retrieve('nope'), OpenAI.NotFoundError, /nope/);
  });

  for (const [what, begin] of [
    [
      'chat that is streamed',
      async (signal: AbortSignal) => {
        const stream = await openai.chat.completions.create({ ...endless, messages, stream: true }, { signal });
        for await (const _ of stream);
      },
    ],
    ['chat that is not', (signal: AbortSignal) => openai.chat.completions.create({ ...endless, messages }, { signal })],
    [
      'completion',
      (signal: AbortSignal) => openai.completions.create({ ...endless, prompt: program.prompt }, { signal }),
    ],
  ] as const) {
    test(`a ${what} that is aborted frees its blocks in the engine`, async () => {
      const aborted = { finished_reason: 'abort' };
      const before = await metricReaches(cluster.engineUrl, 'vllm:request_success_total', () => true, aborted);
      const abort = new AbortController();
      const ended = Promise.resolve(begin(abort.signal)).then(
        () => 'whole',
        (error: unknown) => (error instanceof OpenAI.APIUserAbortError ? 'aborted' : error),
      );
      await metricReaches(cluster.engineUrl, 'vllm:kv_cache_usage_perc', (value) => value > 0);
      assert.equal(await metric(cluster.engineUrl, 'vllm:num_requests_running'), 1);
      abort.abort();
      // A stream of this client just ends then.
      assert.equal(await ended, what.includes('streamed') ? 'whole' : 'aborted');
      await metricReaches(cluster.engineUrl, 'vllm:num_requests_running', isZero);
      await metricReaches(cluster.engineUrl, 'vllm:kv_cache_usage_perc', isZero);
      // It was ended, it did not end.
      const more = (value: number) => value === before + 1;
      await metricReaches(cluster.engineUrl, 'vllm:request_success_total', more, aborted);
    });
  }
});
