import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { until } from '../support/until.ts';
import { chat, type ErrorAnswer, post, setup } from './harness.ts';
import { json, rawClient } from './upstream.ts';

const LIMIT = { body_limit_bytes: 1024 };

describe('checklist 10: bodies', () => {
  for (const path of ['/v1/chat/completions', '/tokenize']) {
    it(`above the limit get a 413 on ${path}, and the backend never sees them`, async (t) => {
      const { gateway, upstream } = await setup(t, json('{}'), LIMIT);
      const response = await post(gateway, path, { prompt: 'x'.repeat(2000) });
      assert.equal(response.status, 413);
      const { error } = (await response.json()) as ErrorAnswer;
      assert.deepEqual(error, {
        message: 'the body is larger than 1024 bytes',
        type: 'gateway_body_too_large',
        param: null,
        code: 413,
      });
      assert.equal(upstream.received.length, 0);
    });
  }

  it('above the limit get it in chunks of unknown length too', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'), LIMIT);
    const body = new ReadableStream({
      start(controller) {
        for (let i = 0; i < 4; i++) controller.enqueue(Buffer.alloc(500, ' '));
        controller.close();
      },
    });
    const init = { method: 'POST', body, duplex: 'half' } as RequestInit;
    const response = await fetch(`${gateway.url}/v1/chat/completions`, init);
    assert.equal(response.status, 413);
    assert.equal(upstream.received.length, 0);
  });

  it('that never end are cut some time after the 413', async (t) => {
    const { gateway } = await setup(t, json('{}'), LIMIT);
    const client = await rawClient(gateway.port);
    client.write('POST /tokenize HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n');
    await until(() => client.text().includes(' 413 '), 'the answer is there before the body is');
    await until(() => client.closed(), 'the connection is cut');
  });

  it('of exactly the limit pass', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'), LIMIT);
    assert.equal((await post(gateway, '/tokenize', 'x'.repeat(1024))).status, 200);
    assert.equal(upstream.received[0]!.body.length, 1024);
  });

  it('of many megabytes pass unchanged', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const text = JSON.stringify({ messages: [{ image: 'A"é\\'.repeat(4_000_000) }], crystal_kv: { mode: 'off' } });
    assert.equal((await chat(gateway, text)).status, 200);
    const sent = JSON.parse(upstream.received[0]!.body.toString());
    assert.equal(sent.vllm_xargs.crystalkv_mode, 'off');
    assert.deepEqual(sent.messages, JSON.parse(text).messages);
  });

  it('in chunks are put together', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const client = await rawClient(gateway.port);
    client.write('POST /tokenize HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{"\r\n');
    client.write('4\r\na":1\r\n1\r\n}\r\n0\r\n\r\n');
    await until(() => client.text().includes('200 OK'), 'the answer');
    assert.equal(upstream.received[0]!.body.toString(), '{"a":1}');
    assert.equal(upstream.received[0]!.headers['content-length'], '7');
    client.socket.destroy();
  });

  it('that are not JSON get a 400 that says where', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const response = await chat(gateway, '{"model":"m",\n"messages":[}');
    assert.equal(response.status, 400);
    const { error } = (await response.json()) as ErrorAnswer;
    assert.equal(error.type, 'gateway_malformed_json');
    assert.match(error.message, /^expected a value, found '}' \(byte 26, line 2, column 13\)$/);
    assert.equal(upstream.received.length, 0);
  });

  for (const body of ['', '[]', '"x"', 'null']) {
    it(`that hold ${JSON.stringify(body)} get a 400`, async (t) => {
      const { gateway } = await setup(t, json('{}'));
      const response = await chat(gateway, body);
      assert.equal(response.status, 400);
      assert.equal(((await response.json()) as ErrorAnswer).error.type, 'gateway_malformed_json');
    });
  }

  it('that are compressed get a 415: reserved keys could hide in them', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const body = new Uint8Array(gzipSync('{"vllm_xargs":{"crystalkv_id":"x"}}'));
    const headers = { 'content-encoding': 'gzip' };
    const response = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body, headers });
    assert.equal(response.status, 415);
    assert.equal(((await response.json()) as ErrorAnswer).error.type, 'gateway_unsupported_encoding');
    assert.equal(upstream.received.length, 0);
  });
});
