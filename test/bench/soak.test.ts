import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { describe, test } from 'node:test';
import { bodyOf } from '../../bench/soak/bodies.ts';
import { tokensOf, verdictOf } from '../../bench/soak/expectations.ts';
import { keyDisagreements } from '../../bench/soak/key-tally.ts';
import { type Keys, leftLeases } from '../../bench/soak/redis-counts.ts';
import { added, fewest, socketsOf } from '../../bench/soak/sockets.ts';
import { count, disagreements, emptyTally } from '../../bench/soak/tally.ts';
import { createRedisLimiter } from '../../gateway/limits/redis.ts';
import { createRandom } from '../../model/random.ts';
import { parseMetrics } from '../../scripts/metrics/text.ts';
import { NO_REDIS, startRedis } from '../gateway-keys/redis-server.ts';

describe('the counters of a soak', () => {
  const tally = emptyTally();
  count(tally, { kind: 'complete', status: 200 });
  count(tally, { kind: 'told', status: 200 });
  count(tally, { kind: 'complete', status: 502 });
  count(tally, { kind: 'left' });
  count(tally, { kind: 'left' });
  const page = (lines: readonly string[]) => parseMetrics(lines.map((line) => `crystalkv_gateway_${line}`).join('\n'));
  const good = [
    'requests_total{status="200",outcome="ok"} 2',
    'requests_total{status="200",outcome="broken"} 1',
    'requests_total{status="502",outcome="server_error"} 1',
    'requests_total{status="499",outcome="client_abort"} 1',
    'client_aborts_total{stage="waiting"} 1',
    'broken_streams_total{end="told"} 1',
    'inflight 0',
    'backend_outstanding{backend="x"} 0',
  ];

  test('agree when a client left just as its answer ended', () => {
    assert.deepEqual(disagreements(tally, page(good)), []);
  });

  for (const [what, from, to] of [
    ['a request too few', 'outcome="ok"} 2', 'outcome="ok"} 1'],
    ['an answer that no client saw', 'status="502"', 'status="503"'],
    ['an abort too many', 'client_aborts_total{stage="waiting"} 1', 'client_aborts_total{stage="waiting"} 3'],
    ['a broken stream that was not told', '{end="told"} 1', '{end="told"} 0'],
    ['a request that never ended', 'inflight 0', 'inflight 1'],
  ] as const) {
    test(`disagree over ${what}`, () => {
      const changed = good.map((line) => line.replace(from, to));
      assert.notDeepEqual(changed, good);
      assert.ok(disagreements(tally, page(changed)).length > 0);
    });
  }
});

describe('the counters of keys', () => {
  const tallies = new Map([
    ['steady', { limited: 0, tokens: { least: 500, most: 500 } }],
    ['tight', { limited: 7, tokens: { least: 100, most: 300 } }],
  ] as const);
  const page = (steady: number, tight: number, limited: number) =>
    parseMetrics(
      [
        `tokens_total{key="steady",model="other",direction="input"} ${steady - 100}`,
        'tokens_total{key="steady",model="other",direction="output"} 100',
        `tokens_total{key="tight",model="other",direction="output"} ${tight}`,
        'limited_total{key="tight",limit="tokens_per_minute"} 2',
        `limited_total{key="tight",limit="requests_per_minute"} ${limited - 2}`,
      ]
        .map((line) => `crystalkv_gateway_${line}`)
        .join('\n'),
    );

  test('agree when tokens are as many as they must be, or may be', () => {
    for (const tight of [100, 300]) assert.deepEqual(keyDisagreements(tallies, page(500, tight, 7)), []);
  });

  test('disagree over a token and over a refusal', () => {
    for (const [steady, tight, limited] of [
      [501, 100, 7],
      [499, 100, 7],
      [500, 99, 7],
      [500, 301, 7],
      [500, 100, 6],
    ] as const) {
      assert.equal(keyDisagreements(tallies, page(steady, tight, limited)).length, 1);
    }
  });
});

test('a lease that stays, and tokens that no lease reserves, are told', { skip: NO_REDIS }, async (t) => {
  const redis = await startRedis(t);
  const client = redis.client();
  const keys = { steady: 'k1', tight: 'k2', mixed: 'k3', free: 'k4', unknown: 'k5' };
  const entries = Object.fromEntries(Object.entries(keys).map(([name, id]) => [name, { id, secret: '' }]));
  const left = () => leftLeases(redis, entries as Keys, new AbortController().signal, 0);
  const limiter = createRedisLimiter(client, 'crystalkv');
  const lease = { key: 'k1', id: 'a', reserve: 100 };
  await limiter.admit(lease, {});
  assert.deepEqual(await left(), ['key steady: 1 requests run on in Redis', 'key steady: 100 tokens stay reserved']);
  await limiter.settle(lease, 7);
  assert.deepEqual(await left(), []);
  await client.hset('crystalkv:{k2}:counts', 'reserved', '5');
  assert.deepEqual(await left(), [
    'key tight: 5 tokens stay reserved',
    'crystalkv:{k2}:counts stays in Redis for ever',
  ]);
});

describe('what a soak expects', () => {
  const random = createRandom(1);
  const chat = bodyOf('stream', random);
  const upload = bodyOf('upload', random);
  const complete = (status: number, text = '') => ({ kind: 'complete', status, text }) as const;
  const error = (type: string) => JSON.stringify({ error: { type } });
  const usage = 'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n';

  test('is good: answers, a full queue, the limits of the tight key, an upload that came whole', () => {
    assert.equal(verdictOf('steady', 'stream', chat, complete(200, 'data: {}\n\n')), 'good');
    assert.equal(verdictOf('steady', 'stream_usage', chat, complete(200, usage)), 'good');
    assert.equal(verdictOf('steady', 'stream', chat, complete(429, error('gateway_queue_full'))), 'good');
    assert.equal(verdictOf('tight', 'stream', chat, complete(429, error('gateway_rate_limited'))), 'limited');
    assert.equal(
      verdictOf('free', 'stream', chat, complete(502, error('gateway_upstream_unreachable'))),
      'unreachable',
    );
    assert.equal(verdictOf('unknown', 'answer', chat, complete(401, error('gateway_invalid_api_key'))), 'good');
    assert.equal(verdictOf('free', 'upload', upload, complete(200, JSON.stringify({ text: upload.digest }))), 'good');
  });

  test('is a problem: other limits, other ends, a usage that nobody asked for, an upload that changed', () => {
    for (const [key, behaviour, body, end] of [
      ['steady', 'stream', chat, complete(429, error('gateway_rate_limited'))],
      ['steady', 'stream', chat, complete(503, error('gateway_limits_unavailable'))],
      ['steady', 'stream', chat, { kind: 'told', status: 200, text: '' }],
      ['steady', 'stream', chat, complete(200, usage)],
      ['steady', 'stream_usage', chat, complete(200, '')],
      ['unknown', 'answer', chat, complete(200)],
      ['free', 'upload', upload, complete(200, JSON.stringify({ text: '1 bytes' }))],
    ] as const) {
      assert.equal(typeof verdictOf(key, behaviour, body, end), 'object', `${key} ${behaviour} ${end.status}`);
    }
  });

  test('tokens are exact for what came whole, and a range for what did not', () => {
    assert.deepEqual(tokensOf('stream', chat, complete(200)), { least: 212, most: 212 });
    assert.deepEqual(tokensOf('stream', chat, complete(503)), { least: 0, most: 0 });
    const { least, most } = tokensOf('stream', chat, { kind: 'left' });
    assert.ok(least === 0 && most > chat.length / 4, `${most}`);
  });
});

test('the sockets of a process are found by what they are connected with', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  t.after(() => server.close());
  const before = socketsOf(process.pid);
  assert.equal(before.get(`listens on ${port}`), 1);
  const socket = connect(port, '127.0.0.1');
  const [accepted] = await once(server, 'connection');
  t.after(() => accepted.destroy());
  t.after(() => socket.destroy());
  const after = socketsOf(process.pid);
  const [more] = added(before, after);
  assert.match(more ?? '', /^2 more with port \d+$/);
  assert.deepEqual(added(before, fewest(after, before)), []);
});
