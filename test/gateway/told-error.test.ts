import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { fleet, named } from './fleet-harness.ts';
import { chat, metric, metricReaches, post, setup } from './harness.ts';
import { hangAfter, json, stream } from './upstream.ts';

const DELTA = 'data: {"choices":[{"index":0,"delta":{"content":"an \\"error\\": x"}}]}\n\n';
const ERROR = 'data: {"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}\n\n';
const DONE = 'data: [DONE]\n\n';
const NO_CHECKS = { health: { interval_ms: 0 } };

describe('a stream that tells an error', () => {
  for (const [name, path, events, outcome] of [
    ['and nothing else', '/v1/chat/completions', [ERROR, DONE], 'server_error'],
    ['cut anywhere', '/v1/chat/completions', [': hello\n\nda', 'ta: {"er', ERROR.slice(10), DONE], 'server_error'],
    ['after a beginning', '/v1/chat/completions', [DELTA, ERROR, DONE], 'broken'],
    ['of the client', '/v1/chat/completions', ['data: {"error":{"code":400}}\n\n', DONE], 'client_error'],
    ['as messages have it', '/v1/messages', ['event: error\ndata: {"type":"error","error":{}}\n\n'], 'server_error'],
    ['as responses have it', '/v1/responses', ['event: response.failed\ndata: {"response":{}}\n\n'], 'server_error'],
    ['in its text only', '/v1/chat/completions', [DELTA, DELTA, DONE], 'ok'],
  ] as const) {
    it(`${name} is counted as ${outcome}, and passes unchanged`, async (t) => {
      const { gateway } = await setup(t, stream(events));
      assert.equal(await (await post(gateway, path, { stream: true })).text(), events.join(''));
      const series = `crystalkv_gateway_requests_total{route="${path}",status="200",outcome="${outcome}"}`;
      await metricReaches(gateway, series, 1);
    });
  }

  it('opens the breaker when there is nothing else in it', async (t) => {
    const config = { breaker: { failures: 3 }, ...NO_CHECKS };
    const { gateway, upstreams, counts } = await fleet(t, [stream([ERROR, DONE]), stream([DELTA, DONE])], config);
    const open = `crystalkv_gateway_breaker_state{backend="${upstreams[0]!.url}",state="open"}`;
    await until(async () => {
      await (await chat(gateway, { stream: true })).text();
      return (await metric(gateway, open)) === 1;
    }, 'it opens');
    assert.equal(counts()[0], 3);
  });

  it('and a good one closes the breaker with its first event, not with its last', async (t) => {
    const config = { breaker: { failures: 1, open_ms: 50 }, ...NO_CHECKS };
    const { gateway, upstream } = await setup(t, json('{}', 500), config);
    await (await chat(gateway)).text();
    upstream.script = hangAfter([DELTA]);
    const leaving = new AbortController();
    const response = await chat(gateway, { stream: true }, { signal: leaving.signal });
    await response.body!.getReader().read();
    await metricReaches(gateway, `crystalkv_gateway_breaker_state{backend="${upstream.url}",state="closed"}`, 1);
    leaving.abort();
  });
});

describe('a backend that refuses at once what another does', () => {
  for (const status of [401, 404, 302]) {
    it(`with ${status} does not get all the traffic`, async (t) => {
      const slow = named('good');
      const script: typeof slow = async (received) => {
        await new Promise((resolve) => setTimeout(resolve, 100));
        await slow(received);
      };
      const { gateway, counts } = await fleet(t, [json('{}', status, { location: '/' }), script], NO_CHECKS);
      const ask = async () => {
        for (let i = 0; i < 10; i++) await (await chat(gateway, {}, { redirect: 'manual' })).text();
      };
      await Promise.all([ask(), ask(), ask(), ask()]);
      assert.ok(counts()[0]! < counts()[1]!, counts().join());
    });
  }
});
