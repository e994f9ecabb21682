import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { chat, metric, metricReaches, setup } from './harness.ts';
import { cut, hang, hangAfter, json, rawClient } from './upstream.ts';

const REQUEST = (body: string) =>
  `POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

describe('checklist 6: a client that goes away aborts the request to the backend', () => {
  for (const body of [{ stream: false }, { stream: true }]) {
    it(`while it waits for the first byte (${JSON.stringify(body)})`, async (t) => {
      const { gateway, upstream, log } = await setup(t, hang);
      const abort = new AbortController();
      const answer = chat(gateway, body, { signal: abort.signal });
      const received = await until(() => upstream.received[0], 'the backend has the request');
      abort.abort();
      await assert.rejects(answer);
      await until(() => received.aborted, 'the backend sees the connection close');
      await metricReaches(gateway, 'crystalkv_gateway_client_aborts_total{stage="waiting"}', 1);
      const requests =
        'crystalkv_gateway_requests_total{route="/v1/chat/completions",status="499",outcome="client_abort"}';
      assert.equal(await metric(gateway, requests), 1);
      assert.equal(log.find((line) => line['msg'] === 'request')?.['outcome'], 'client_abort');
      assert.equal(await metric(gateway, 'crystalkv_gateway_inflight'), 0);
      assert.equal(await metric(gateway, `crystalkv_gateway_backend_outstanding{backend="${upstream.url}"}`), 0);
    });
  }

  it('in the middle of a stream', async (t) => {
    const { gateway, upstream } = await setup(t, hangAfter(['data: 1\n\n']));
    const abort = new AbortController();
    const response = await chat(gateway, { stream: true }, { signal: abort.signal });
    await response.body!.getReader().read();
    abort.abort();
    await until(() => upstream.received[0]!.aborted, 'the backend sees the connection close');
    await metricReaches(gateway, 'crystalkv_gateway_client_aborts_total{stage="streaming"}', 1);
    const broken = 'crystalkv_gateway_broken_streams_total{route="/v1/chat/completions",end="told"}';
    assert.equal(await metric(gateway, broken), 0);
  });

  it('in the middle of a stream, when it closes its side only', async (t) => {
    const { gateway, upstream } = await setup(t, hangAfter(['data: 1\n\n']));
    const client = await rawClient(gateway.port);
    client.write(REQUEST('{}'));
    await until(() => client.text().includes('data: 1'), 'the stream has begun');
    client.socket.end();
    await until(() => upstream.received[0]?.aborted, 'the backend sees the connection close');
  });

  it('while it sends its body: the backend never hears of it', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const client = await rawClient(gateway.port);
    client.write(REQUEST('{"a":1}').slice(0, -3));
    await until(async () => (await metric(gateway, 'crystalkv_gateway_inflight')) === 1, 'the request has begun');
    client.socket.destroy();
    await metricReaches(gateway, 'crystalkv_gateway_client_aborts_total{stage="upload"}', 1);
    assert.equal(upstream.received.length, 0);
  });

  it('and other requests on the same backend go on', async (t) => {
    const { gateway, upstream } = await setup(t, hang);
    const abort = new AbortController();
    const left = chat(gateway, {}, { signal: abort.signal });
    const stays = chat(gateway);
    await until(() => upstream.received.length === 2, 'the backend has both');
    abort.abort();
    await assert.rejects(left);
    const other = await until(
      () => upstream.received.some(({ aborted }) => aborted) && upstream.received.find(({ aborted }) => !aborted),
      'one was aborted',
    );
    other.response.end('{"ok":true}');
    assert.equal(await (await stays).text(), '{"ok":true}');
  });

  it('and a backend that breaks off is not taken for a client that left', async (t) => {
    const { gateway } = await setup(t, cut(['{'], 'application/json'));
    await assert.rejects((await chat(gateway)).text());
    await metricReaches(gateway, 'crystalkv_gateway_broken_streams_total{route="/v1/chat/completions",end="reset"}', 1);
    for (const stage of ['upload', 'waiting', 'streaming']) {
      assert.equal(await metric(gateway, `crystalkv_gateway_client_aborts_total{stage="${stage}"}`), 0);
    }
  });
});
