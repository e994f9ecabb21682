import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it, type TestContext } from 'node:test';
import { until } from '../support/until.ts';
import { type ErrorAnswer, metric, metricReaches, setup, startGateway } from './harness.ts';
import { createUpstream, drop, json, type RawClient, rawClient, refusedUrl, stream } from './upstream.ts';

const MIB = 1024 * 1024;
const PATHS = ['/v1/audio/transcriptions', '/v1/audio/translations'];

function form(bytes: number): FormData {
  const data = new FormData();
  data.set('model', 'whisper');
  data.set('file', new Blob([Buffer.alloc(bytes, 7)]), 'speech.wav');
  return data;
}

async function begin(port: number, length: number | 'chunked', path = PATHS[0]): Promise<RawClient> {
  const client = await rawClient(port);
  const framing = length === 'chunked' ? 'Transfer-Encoding: chunked' : `Content-Length: ${length}`;
  client.write(
    `POST ${path} HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=x\r\n${framing}\r\n\r\n`,
  );
  return client;
}

const chunk = (bytes: number) =>
  Buffer.concat([Buffer.from(`${bytes.toString(16)}\r\n`), Buffer.alloc(bytes, 1), Buffer.from('\r\n')]);

describe('checklist 10: uploads stream through', () => {
  for (const path of PATHS) {
    it(`to the byte, with their type and length, on ${path}`, async (t) => {
      const { gateway, upstream } = await setup(t, json('{"text":"hello"}'));
      const response = await fetch(gateway.url + path, { method: 'POST', body: form(3 * MIB) });
      assert.equal(await response.text(), '{"text":"hello"}');
      const [received] = upstream.received;
      const type = received!.headers['content-type'] ?? '';
      assert.match(type, /^multipart\/form-data; boundary=/);
      const parsed = await new Response(new Uint8Array(received!.body), {
        headers: { 'content-type': type },
      }).formData();
      assert.equal(parsed.get('model'), 'whisper');
      const file = parsed.get('file') as File;
      assert.equal(file.name, 'speech.wav');
      assert.deepEqual(Buffer.from(await file.arrayBuffer()), Buffer.alloc(3 * MIB, 7));
      assert.equal(received!.headers['content-length'], String(received!.body.length));
    });
  }

  for (const length of [1000, 'chunked'] as const) {
    it(`the backend has the first part before the client sent the last (${length})`, async (t) => {
      const { gateway, upstream } = await setup(t, json('{"text":"x"}'));
      const client = await begin(gateway.port, length);
      client.write(length === 'chunked' ? chunk(400) : Buffer.alloc(400));
      await until(() => upstream.arriving[0]?.bytes === 400, 'the backend has the first part');
      client.write(length === 'chunked' ? Buffer.concat([chunk(600), Buffer.from('0\r\n\r\n')]) : Buffer.alloc(600));
      await until(() => client.text().includes('{"text":"x"}'), 'the answer');
      assert.equal(upstream.received[0]!.body.length, 1000);
      client.socket.destroy();
    });
  }

  it('a backend that reads slowly stalls the client instead of filling memory', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const client = await begin(gateway.port, 60 * MIB);
    client.write(Buffer.alloc(1));
    const arriving = await until(() => upstream.arriving[0], 'the backend has the head');
    arriving.request.pause();
    const piece = Buffer.alloc(MIB);
    let sent = 1;
    const writing = (async () => {
      while (sent < 60 * MIB) {
        const part = piece.subarray(0, Math.min(MIB, 60 * MIB - sent));
        sent += part.length;
        if (!client.socket.write(part)) await once(client.socket, 'drain');
      }
    })();
    let last = -1;
    let still = 0;
    await until(() => {
      still = sent === last ? still + 1 : 0;
      last = sent;
      return still > 100;
    }, 'the client is stalled');
    assert.ok(sent < 40 * MIB, `${sent} bytes were taken from the client`);
    arriving.request.resume();
    await writing;
    await until(() => client.text().includes('{}'), 'the answer');
    assert.equal(upstream.received[0]!.body.length, 60 * MIB);
    client.socket.destroy();
  });

  it('an announced length above the limit is a 413, and the backend never hears of it', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'), { body_limit_bytes: 1024 });
    const response = await fetch(gateway.url + PATHS[0], { method: 'POST', body: form(2000) });
    assert.equal(response.status, 413);
    assert.equal(((await response.json()) as ErrorAnswer).error.type, 'gateway_body_too_large');
    assert.equal(upstream.arriving.length, 0);
  });

  it('one that turns out to be above it is a 413, and the backend sees it break off', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'), { body_limit_bytes: 1024 });
    const client = await begin(gateway.port, 'chunked');
    client.write(chunk(1000));
    await until(() => upstream.arriving[0]?.bytes === 1000, 'the backend has the first part');
    client.write(chunk(1000));
    await until(() => client.text().includes('gateway_body_too_large'), 'the answer');
    assert.match(client.text(), /^HTTP\/1\.1 413 /);
    await until(() => upstream.arriving[0]!.aborted, 'the backend sees it break off');
    assert.equal(upstream.received.length, 0);
    const errors = `crystalkv_gateway_upstream_errors_total{backend="${upstream.url}",reason="protocol"}`;
    assert.equal(await metric(gateway, errors), 0);
    client.socket.destroy();
  });

  it('a client that leaves in the middle aborts the upload', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const client = await begin(gateway.port, 1000);
    client.write(Buffer.alloc(10));
    await until(() => upstream.arriving[0]?.bytes === 10, 'the backend has the first part');
    client.socket.destroy();
    await until(() => upstream.arriving[0]!.aborted, 'the backend sees it break off');
    await until(async () => (await metric(gateway, 'crystalkv_gateway_inflight')) === 0, 'the request has ended');
  });

  it('a transcription may be streamed back', async (t) => {
    const events = ['data: {"choices":[{"delta":{"content":"hé"}}]}\n\n', 'data: [DONE]\n\n'];
    const { gateway } = await setup(t, stream(events));
    const response = await fetch(gateway.url + PATHS[0], { method: 'POST', body: form(10) });
    assert.equal(await response.text(), events.join(''));
  });
});

describe('checklist 8: uploads are sent once', () => {
  async function both(t: TestContext, first: string) {
    const second = await createUpstream(json('{"text":"second"}'));
    const { gateway } = await startGateway({ backends: [first, second.url] });
    t.after(async () => {
      await gateway.close();
      await second.close();
    });
    return { gateway, second };
  }

  it('to another backend when no byte was sent', async (t) => {
    const { gateway } = await both(t, await refusedUrl());
    for (let i = 0; i < 2; i++) {
      const response = await fetch(gateway.url + PATHS[0], { method: 'POST', body: form(MIB) });
      assert.equal(await response.text(), '{"text":"second"}');
    }
  });

  it('and not again once some of it was', async (t) => {
    const first = await createUpstream(drop);
    t.after(() => first.close());
    const { gateway, second } = await both(t, first.url);
    const statuses: number[] = [];
    for (let i = 0; i < 2; i++) {
      const response = await fetch(gateway.url + PATHS[0], { method: 'POST', body: form(100) });
      statuses.push(response.status);
      await response.text();
    }
    assert.deepEqual(statuses.toSorted(), [200, 502]);
    assert.deepEqual([first.received.length, second.received.length], [1, 1]);
    await metricReaches(gateway, `crystalkv_gateway_failovers_total{backend="${first.url}"}`, 0);
  });
});
