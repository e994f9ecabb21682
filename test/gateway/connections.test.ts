import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { newKey, setupKeyed } from '../gateway-keys/harness.ts';
import { until } from '../support/until.ts';
import { metric, metricReaches, setup } from './harness.ts';
import { hang, json, rawClient, type Script } from './upstream.ts';

const HEAD = 'POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n';
const BODY = '{"model":"m"}';
const REQUEST = `${HEAD}Content-Length: ${BODY.length}\r\n\r\n${BODY}`;

const late =
  (ms: number): Script =>
  ({ response }) =>
    void setTimeout(() => response.end('{"id":"late"}'), ms);

/** Sends the bytes and ends its side; resolves with all that comes until the other side is ended. */
function halfClosing(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    let got = '';
    socket.on('data', (chunk) => {
      got += chunk.toString('latin1');
    });
    socket.on('end', () => resolve(got));
    socket.on('error', reject);
    socket.end(text);
  });
}

describe('a client that ends its side of the connection', () => {
  it('gets its answer', async (t) => {
    const { gateway } = await setup(t, json('{"id":"soon"}'));
    assert.match(await halfClosing(gateway.port, REQUEST), /^HTTP\/1\.1 200 /);
  });

  it('gets one that takes a while', async (t) => {
    const { gateway } = await setup(t, late(800));
    assert.match(
      await halfClosing(gateway.port, REQUEST),
      /^(?:HTTP\/1\.1 100 Continue\r\n\r\n)+HTTP\/1\.1 200 [\s\S]*"late"/,
    );
  });

  it('and has left stops what runs for it', async (t) => {
    const { gateway, upstream } = await setup(t, hang);
    const client = await rawClient(gateway.port);
    client.write(REQUEST);
    await until(() => upstream.received.length === 1, 'the backend has the request');
    client.socket.destroy();
    await until(() => upstream.received[0]?.aborted === true, 'the backend sees it end');
    await metricReaches(gateway, 'crystalkv_gateway_client_aborts_total{stage="waiting"}', 1);
  });

  it('is taken for one that has left where HTTP/1.0 leaves no way to ask', async (t) => {
    const { gateway, upstream } = await setup(t, hang);
    const client = connect({ port: gateway.port, host: '127.0.0.1', allowHalfOpen: true });
    t.after(() => client.destroy());
    client.on('error', () => {});
    client.end(REQUEST.replace('HTTP/1.1', 'HTTP/1.0'));
    await until(() => upstream.received[0]?.aborted === true, 'the backend sees it end');
  });
});

describe('a client that asks before it sends its body', () => {
  const ask = async (port: number, headers: string) => {
    const client = await rawClient(port);
    client.write(`${HEAD}Expect: 100-continue\r\n${headers}\r\n`);
    await until(() => client.text().includes('\r\n\r\n'), 'it is told something');
    return client;
  };

  it('is told what its head alone decides', async (t) => {
    const key = newKey('team');
    const { gateway } = await setupKeyed(t, json('{}'), [key], { body_limit_bytes: 1024 });
    const none = await ask(gateway.port, 'Content-Length: 1000\r\n');
    assert.match(none.text(), /^HTTP\/1\.1 401 /);
    const keyed = `Authorization: Bearer ${key.secret}\r\n`;
    assert.match((await ask(gateway.port, `${keyed}Content-Length: 5000\r\n`)).text(), /^HTTP\/1\.1 413 /);
    const good = await ask(gateway.port, `${keyed}Content-Length: ${BODY.length}\r\n`);
    assert.equal(good.text(), 'HTTP/1.1 100 Continue\r\n\r\n');
    good.write(BODY);
    await until(() => good.text().includes('HTTP/1.1 200 '), 'it is answered');
    await until(() => none.closed(), 'a connection on which no body is to come is closed');
  });

  it('is told to send an upload', async (t) => {
    const { gateway } = await setup(t, json('{}'));
    const client = await rawClient(gateway.port);
    client.write(
      'POST /v1/audio/transcriptions HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 3\r\n\r\n',
    );
    await until(() => client.text() === 'HTTP/1.1 100 Continue\r\n\r\n', 'it may come');
    client.write('abc');
    await until(() => client.text().includes('HTTP/1.1 200 '), 'it is answered');
  });
});

describe('times of connections', () => {
  it('a body may take as long as the whole request', async (t) => {
    const { gateway } = await setup(t, json('{}'), { timeouts: { total_ms: 1_000 } });
    const client = await rawClient(gateway.port);
    client.write('POST /v1/audio/transcriptions HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nx');
    await until(() => client.text() !== '', 'it took too long');
    assert.match(client.text(), /^HTTP\/1\.1 (408|504) /);
    assert.equal(await metric(gateway, 'crystalkv_gateway_inflight'), 0);
  });

  it('an idle connection stays open as long as the options say', async (t) => {
    const { gateway } = await setup(t, json('{}'), { timeouts: { keep_alive_ms: 600_000 } });
    const { headers } = await fetch(`${gateway.url}/v1/models`);
    assert.equal(headers.get('keep-alive'), 'timeout=600');
  });
});
