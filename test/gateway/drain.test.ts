import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { chat, type ErrorAnswer, setup } from './harness.ts';
import { hang, hangAfter, rawClient } from './upstream.ts';

const LONG = { drain_ms: 60_000 };

describe('draining', () => {
  it('lets a running stream finish, takes no new connection and then resolves', async (t) => {
    const { gateway, upstream } = await setup(t, hangAfter(['data: 1\n\n']), LONG);
    const response = await chat(gateway, { stream: true });
    let closed = false;
    const closing = gateway.close().then(() => {
      closed = true;
    });
    await assert.rejects(fetch(`${gateway.url}/health`));
    assert.equal(closed, false);
    upstream.received[0]!.response.end('data: [DONE]\n\n');
    assert.equal(await response.text(), 'data: 1\n\ndata: [DONE]\n\n');
    await closing;
  });

  it('answers 503 on connections that are open: not ready, and no new work', async (t) => {
    const { gateway, upstream } = await setup(t, hangAfter([]), LONG);
    const running = await chat(gateway, { stream: true });
    // Requests that have begun keep their connections open.
    const probe = await rawClient(gateway.port);
    const late = await rawClient(gateway.port);
    probe.write('GET /ready HTTP/1.1\r\nHost: h\r\n');
    late.write('POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n');
    await fetch(`${gateway.url}/health`);
    const closing = gateway.close();
    probe.write('\r\n');
    late.write('\r\n{}');
    await until(() => probe.text().includes('draining') && late.closed(), 'both are answered');
    assert.match(probe.text(), /^HTTP\/1\.1 503 /);
    assert.match(late.text(), /^HTTP\/1\.1 503 [\s\S]*retry-after: 1\r\n/);
    const { error } = JSON.parse(late.text().split('\r\n\r\n')[1]!) as ErrorAnswer;
    assert.equal(error.type, 'gateway_draining');
    assert.equal(upstream.received.length, 1);
    upstream.received[0]!.response.end();
    await running.text();
    await closing;
  });

  it('cuts what still runs at the deadline: streams with an error event, the rest with a 503', async (t) => {
    const { gateway, upstream } = await setup(t, hangAfter(['data: 1\n\n']), { drain_ms: 0 });
    const streaming = await chat(gateway, { stream: true });
    upstream.script = hang;
    const waiting = chat(gateway);
    await until(() => upstream.received.length === 2, 'both are at the backend');
    await gateway.close();
    const text = await streaming.text();
    assert.match(text, /^data: 1\n\ndata: \{"error":.*"gateway_draining".*\}\n\ndata: \[DONE\]\n\n$/);
    assert.equal((await waiting).status, 503);
    await until(() => upstream.received.every(({ aborted }) => aborted), 'both are aborted at the backend');
  });

  it('does not wait for a client that does not read', async (t) => {
    const { gateway } = await setup(
      t,
      ({ response }) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        const event = `data: ${'x'.repeat(1024 * 1024)}\n\n`;
        for (let i = 0; i < 32; i++) response.write(event);
      },
      { drain_ms: 0 },
    );
    const client = await rawClient(gateway.port);
    client.socket.pause();
    client.write('POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}');
    await until(() => client.socket.bytesRead > 0, 'the stream has begun');
    await gateway.close();
    client.socket.destroy();
  });
});
