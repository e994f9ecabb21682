import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import OpenAI from 'openai';
import { ask } from '../../bench/ask.ts';
import { makePrograms } from '../../bench/workload.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { CONFIG, MAX_TOKENS, metric, metricReaches } from './harness.ts';

describe('a chat through gateway, engine and policy service', () => {
  const programs = makePrograms(11, 6, 12);
  const [program] = programs;
  assert.ok(program);
  const messages = [{ role: 'user' as const, content: program.prompt }];
  let cluster: Cluster;
  let openai: OpenAI;

  before(async () => {
    cluster = await startCluster({ config: CONFIG });
    openai = new OpenAI({ baseURL: `${cluster.gatewayUrl}/v1`, apiKey: 'unused', maxRetries: 0 });
  });
  after(() => cluster?.close());

  test('answers programs right', async () => {
    const answers = await Promise.all(
      programs.map((it) => ask(cluster.gatewayUrl, it, { maxTokens: MAX_TOKENS, cache: { mode: 'off' } })),
    );
    assert.deepEqual(
      answers.map((answer) => answer.exact),
      programs.map(() => true),
    );
  });

  test('thinks aloud when the system message says `verbose`, and answers the same', async () => {
    const verbose = makePrograms(11, 6, 12, 'verbose');
    const [first] = verbose;
    assert.ok(first);
    const completion = await openai.chat.completions.create({
      model: 'crystal-mini',
      messages: [
        { role: 'system', content: 'verbose' },
        { role: 'user', content: program.prompt },
      ],
      temperature: 0,
    });
    const message = completion.choices[0]?.message as { reasoning?: string; content: string | null };
    assert.equal(message.reasoning?.trim(), first.reasoning);
    assert.equal(message.content?.trim(), program.answer);
    const answers = await Promise.all(
      verbose.map((it) => ask(cluster.gatewayUrl, it, { maxTokens: MAX_TOKENS, cache: { mode: 'off' } })),
    );
    assert.deepEqual(
      answers.map((answer) => answer.exact),
      verbose.map(() => true),
    );
  });

  test('streams a chain of thought, then the right answer, then [DONE]', async () => {
    const response = await fetch(`${cluster.gatewayUrl}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'crystal-mini', messages, temperature: 0, stream: true }),
    });
    assert.equal(response.status, 200);
    const events = (await response.text()).trim().split('\n\n');
    assert.equal(events.at(-1), 'data: [DONE]');
    const deltas = events
      .slice(0, -1)
      .map((event) => JSON.parse(event.replace(/^data: /, '')).choices[0].delta)
      .map(({ reasoning = '', content = '' }) => ({ reasoning: reasoning ?? '', content: content ?? '' }));
    const text = (key: 'reasoning' | 'content') => deltas.map((delta) => delta[key]).join('');
    assert.equal(text('reasoning').trim(), program.reasoning);
    assert.equal(text('content').trim(), program.answer);
    assert.ok(deltas.length > 50, `${deltas.length} events are no stream of ${program.reasoning.length} characters`);
  });

  test('refuses a wrong eviction option, by field, value and bounds', async () => {
    const response = await fetch(`${cluster.gatewayUrl}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'crystal-mini', messages, crystal_kv: { budget_tokens: -3 } }),
    });
    assert.equal(response.status, 400);
    const { error } = (await response.json()) as { error: { message: string; param: string } };
    assert.equal(error.param, 'crystal_kv.budget_tokens');
    assert.match(error.message, /-3/);
  });

  test('evicts under a fixed budget, and both sides count it alike', async () => {
    const atEngine = () => metric(cluster.engineUrl, 'crystalkv_engine_blocks_evicted_total');
    const before = await atEngine();
    // 24 lines think for 24 blocks; 6 may stay. How many go in time depends on how busy the machine is.
    const cache = { profile: 'window', budget_tokens: 96 };
    const programs = makePrograms(12, 8, 24);
    await Promise.all(programs.map((it) => ask(cluster.gatewayUrl, it, { maxTokens: 500, cache })));
    const evicted = await atEngine();
    assert.ok(evicted > before, 'nothing was evicted');
    await metricReaches(cluster.policyMetricsUrl, 'crystalkv_blocks_evicted_total', (value) => value === evicted);
  });
});
