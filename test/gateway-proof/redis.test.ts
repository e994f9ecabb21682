import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { createFileStore } from '../../gateway/keys/file-store.ts';
import { parseMetrics, total } from '../../scripts/metrics/text.ts';
import { listening, run } from '../gateway/program.ts';
import { createUpstream, hangAfter, json, type Script } from '../gateway/upstream.ts';
import { bearer, folder, newKey } from '../gateway-keys/harness.ts';
import { NO_REDIS, startRedis } from '../gateway-keys/redis-server.ts';
import { until } from '../support/until.ts';

const EVENT = 'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n';
const END = 'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":4}}\n\n' + 'data: [DONE]\n\n';

/** Everything a process of its own: gateway, Redis; the backend is scripted. */
async function start(t: TestContext, script: Script, timeoutMs: number) {
  const redis = await startRedis(t);
  const upstream = await createUpstream(script);
  t.after(() => upstream.close());
  const key = newKey('busy', { requests_per_minute: 1_000_000, tokens_per_day: 1_000_000, concurrent_requests: 1_000 });
  const file = join(folder(t), 'keys.json');
  await createFileStore(file).add(key.entry);
  const program = await run(t, {
    CRYSTALKV_GATEWAY_PORT: '0',
    CRYSTALKV_GATEWAY_BACKENDS: `[${upstream.url}]`,
    CRYSTALKV_GATEWAY_KEYS_STORE: 'file',
    CRYSTALKV_GATEWAY_KEYS_FILE: file,
    CRYSTALKV_GATEWAY_REDIS_URL: redis.url,
    CRYSTALKV_GATEWAY_REDIS_TIMEOUT_MS: `${timeoutMs}`,
    CRYSTALKV_GATEWAY_ADMISSION_EVENT_LOOP_DELAY_MS: '0',
  });
  const url = await listening(program);
  const ask = (body: unknown, signal?: AbortSignal) =>
    fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      body: JSON.stringify(body),
      ...bearer(key),
      ...(signal !== undefined && { signal }),
    });
  const read = async (name: string, labels: Record<string, string> = {}) =>
    total(parseMetrics(await (await fetch(`${url}/metrics`)).text()), `crystalkv_gateway_${name}`, labels);
  /** What Redis has of the key: tokens of today, reserved ones, running requests. */
  const counted = async () => {
    const client = redis.client();
    const counts = await client.hgetall(`crystalkv:{${key.entry.id}}:counts`);
    const day = Object.entries(counts).find(([field]) => field.startsWith('d'))?.[1];
    const running = await client.zcard(`crystalkv:{${key.entry.id}}:running`);
    return { tokens: Number(day ?? 0), reserved: Number(counts['reserved'] ?? 0), running };
  };
  return { redis, upstream, ask, read, counted };
}

describe('Redis in mid-traffic, with the gateway as a process of its own', { skip: NO_REDIS }, () => {
  for (const [fault, hit, mend] of [
    ['killed', 'kill', 'start'],
    ['frozen', 'freeze', 'thaw'],
  ] as const) {
    it(`${fault}: a running stream ends whole, new requests pass, and the tokens of both are told afterwards`, async (t) => {
      const { redis, upstream, ask, read, counted } = await start(t, hangAfter([EVENT]), 2_000);
      const stream = await ask({ stream: true });
      await until(() => upstream.received.length === 1, 'the backend has the stream');
      await redis[hit]();
      upstream.script = json('{"usage":{"prompt_tokens":2,"completion_tokens":3}}');
      for (let i = 0; i < 5; i++) assert.equal((await ask({})).status, 200);
      assert.equal(await read('limit_fallbacks_total', { outcome: 'local' }), 5);
      upstream.received[0]!.response.end(END);
      assert.equal(await stream.text(), `${EVENT}data: [DONE]\n\n`);
      await redis[mend]();
      await until(async () => (await read('redis_up')) === 1, 'Redis is used again');
      // What Redis was asked for while it was frozen it does later: tokens may count twice, never not at all.
      await until(async () => (await counted()).tokens >= 11 + 5 * 5, 'all tokens are told');
      assert.equal((await ask({})).status, 200);
      assert.equal(await read('limit_fallbacks_total', { outcome: 'local' }), 5);
      assert.equal(await read('tokens_total', { key: 'busy' }), 11 + 6 * 5);
    });
  }

  it('frozen: a client that leaves while its limits are asked for leaves nothing behind', async (t) => {
    const { redis, upstream, ask, read, counted } = await start(t, json('{}'), 10_000);
    redis.freeze();
    const abort = new AbortController();
    const answer = assert.rejects(ask({}, abort.signal));
    await until(async () => (await read('inflight')) === 1, 'the request has begun');
    abort.abort();
    await answer;
    await until(async () => (await read('inflight')) === 0, 'the request has ended');
    redis.thaw();
    await until(async () => (await ask({})).status === 200, 'the next is served');
    await until(async () => (await counted()).running === 0, 'nothing runs on in Redis');
    assert.equal((await counted()).reserved, 0);
    assert.equal(upstream.received.length, 1);
    assert.equal(await read('redis_failures_total'), 0);
  });
});
