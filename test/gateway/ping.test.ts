import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { fleet } from './fleet-harness.ts';
import { chat, metric, metricReaches, post, setup } from './harness.ts';
import { hang, json, type Script } from './upstream.ts';

const PINGS = { timeouts: { ping_ms: 50 } };
const STREAM = { model: 'm', messages: [], stream: true };
const EVENT = 'data: {"choices":[]}\n\n';
const ROUTE = '/v1/chat/completions';

const streams: Script = ({ response }) => {
  response.writeHead(200, { 'content-type': 'text/event-stream' }).end(`${EVENT}data: [DONE]\n\n`);
};
/** Does what `then` does after some pings. */
const late =
  (then: Script): Script =>
  (received) =>
    void setTimeout(() => then(received), 250);
/** What came without the pings, of which there was at least one, all at the beginning. */
function withoutPings(text: string): string {
  const [pings] = /^(: ping\n\n)+/.exec(text) ?? [];
  assert.ok(pings !== undefined, text);
  assert.ok(!text.slice(pings.length).includes('ping'), text);
  return text.slice(pings.length);
}
const outcomes = (outcome: string) =>
  `crystalkv_gateway_requests_total{route="${ROUTE}",status="200",outcome="${outcome}"}`;

describe('pings while nothing of a stream has come', () => {
  it('come in the queue, and the stream follows to the byte', async (t) => {
    const { gateway, upstream } = await setup(t, hang, { ...PINGS, admission: { concurrency: 1 } });
    const busy = chat(gateway);
    await until(() => upstream.received.length === 1, 'the slot is taken');
    const response = await chat(gateway, STREAM);
    assert.equal(response.status, 200);
    assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/);
    assert.ok(response.headers.has('x-request-id'));
    upstream.script = streams;
    upstream.received[0]!.response.end('{}');
    assert.equal(withoutPings(await response.text()), `${EVENT}data: [DONE]\n\n`);
    assert.equal(await metric(gateway, 'crystalkv_gateway_first_byte_seconds_count{route="/v1/chat/completions"}'), 2);
    await busy;
  });

  it('come after the backend has sent its head, until its first byte', async (t) => {
    // On a busy machine a ping may be before the head, which then cannot be passed on: longer pauses give it the time.
    for (const ping_ms of [50, 500, 5_000]) {
      let answer: ServerResponse | undefined;
      const heads: Script = ({ response }) => {
        answer = response.writeHead(200, { 'content-type': 'text/event-stream', 'x-backend': 'b' });
        response.flushHeaders();
      };
      const { gateway } = await setup(t, heads, { timeouts: { ping_ms } });
      const response = await chat(gateway, STREAM);
      await until(() => answer !== undefined, 'the backend has answered');
      let text = '';
      const write = (bytes: Uint8Array) => {
        text += Buffer.from(bytes).toString();
      };
      const read = response.body!.pipeTo(new WritableStream({ write }));
      await until(() => text.includes(': ping'), 'a ping comes');
      answer!.write(EVENT);
      await until(() => text.includes(EVENT), 'the event comes');
      await new Promise((resolve) => setTimeout(resolve, Math.min(ping_ms, 100) * 2));
      answer!.end('data: [DONE]\n\n');
      await read;
      assert.equal(withoutPings(text), `${EVENT}data: [DONE]\n\n`);
      if (response.headers.get('x-backend') === 'b') return;
    }
    assert.fail('each ping came before the head');
  });

  it('are followed by an error event for an answer that is none, which counts as the error that it is', async (t) => {
    const body = '{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}';
    const { gateway } = await setup(t, late(json(body, 400)), PINGS);
    const response = await chat(gateway, STREAM);
    assert.equal(withoutPings(await response.text()), `data: ${body}\n\ndata: [DONE]\n\n`);
    await metricReaches(gateway, outcomes('client_error'), 1);
    const messages = await (await post(gateway, '/v1/messages', STREAM)).text();
    assert.match(withoutPings(messages), /^event: error\ndata: \{"type":"error","error":\{.*"too long"\}\}\n\n$/);
    const responses = await (await post(gateway, '/v1/responses', STREAM)).text();
    assert.match(withoutPings(responses), /^event: error\ndata: \{"type":"error",.*"too long","param":null\}\n\n$/);
  });

  it('tell a text of a server, and a body that is no stream', async (t) => {
    const { gateway, upstream } = await setup(t, late(json('<h1>no\nway</h1>', 500)), PINGS);
    const text = withoutPings(await (await chat(gateway, STREAM)).text());
    const { error } = JSON.parse(text.slice('data: '.length, text.indexOf('\n'))) as { error: { code: number } };
    assert.equal(error.code, 500);
    await metricReaches(gateway, outcomes('server_error'), 1);
    upstream.script = late(json('{"id":\n"x"}'));
    assert.equal(withoutPings(await (await chat(gateway, STREAM)).text()), 'data: {"id":"x"}\n\ndata: [DONE]\n\n');
  });

  it('leave retries as they are; the last error of the gateway is an event too', async (t) => {
    const { gateway, upstreams } = await fleet(t, [late(json('{}', 503)), late(json('{}', 503))], {
      ...PINGS,
      health: { interval_ms: 0 },
      admission: { concurrency: 1, queue_ms: 200 },
    });
    const tell = upstreams.map((upstream) => upstream.script);
    upstreams[0]!.script = upstreams[1]!.script = (received) => {
      upstreams[0]!.script = upstreams[1]!.script = streams;
      return tell[0]!(received);
    };
    assert.equal(withoutPings(await (await chat(gateway, STREAM)).text()), `${EVENT}data: [DONE]\n\n`);
    upstreams[0]!.script = upstreams[1]!.script = hang;
    const abort = new AbortController();
    const busy = [0, 1].map(() => chat(gateway, {}, { signal: abort.signal }).catch(() => {}));
    await metricReaches(gateway, 'crystalkv_gateway_inflight', 2);
    const text = withoutPings(await (await chat(gateway, STREAM)).text());
    assert.match(text, /^data: \{"error":\{.*"gateway_queue_timeout".*\}\}\n\ndata: \[DONE\]\n\n$/);
    await metricReaches(gateway, outcomes('server_error'), 1);
    abort.abort();
    await Promise.all(busy);
  });

  it('come neither without the option nor to a request that asks for no stream', async (t) => {
    const { gateway } = await setup(t, late(json('{"error":"x"}', 400)), PINGS);
    const plain = await chat(gateway);
    assert.deepEqual([plain.status, await plain.text()], [400, '{"error":"x"}']);
    const { gateway: off } = await setup(t, late(json('{"error":"x"}', 400)));
    assert.equal((await chat(off, STREAM)).status, 400);
  });
});
