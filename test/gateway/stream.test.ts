import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { chat, type ErrorAnswer, metric, metricReaches, post, setup, startGateway } from './harness.ts';
import { createRawUpstream, cut, hangAfter, rawClient, stream } from './upstream.ts';

const EVENTS = ['data: {"a":"é"}\n\n', 'data: {"a":"日本😀"}\n\n', ': ping\n\n', 'data: [DONE]\n\n'];
const WHOLE = EVENTS.join('');

/** Every cut of the bytes into pieces of `size`, which splits events and characters. */
function piecesOf(size: number): Buffer[] {
  const bytes = Buffer.from(WHOLE);
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
}

function count(text: string, part: string): number {
  return text.split(part).length - 1;
}

describe('checklist 1: event streams pass unchanged and unbuffered', () => {
  for (const size of [1, 2, 3, 7, 1000]) {
    it(`when the backend sends pieces of ${size} bytes`, async (t) => {
      const { gateway } = await setup(t, stream(piecesOf(size)));
      const response = await chat(gateway, { stream: true });
      assert.equal(response.headers.get('content-type'), 'text/event-stream; charset=utf-8');
      assert.equal(response.headers.get('x-accel-buffering'), 'no');
      assert.equal(response.headers.get('content-encoding'), null);
      assert.deepEqual(Buffer.from(await response.arrayBuffer()), Buffer.from(WHOLE));
    });
  }

  it('an event is there before the next one is made', async (t) => {
    const { gateway, upstream } = await setup(t, hangAfter([]));
    const response = await chat(gateway, { stream: true });
    const reader = response.body!.getReader();
    const backend = upstream.received[0]!.response;
    for (const event of EVENTS) {
      backend.write(event);
      const { value } = await reader.read();
      assert.equal(Buffer.from(value!).toString(), event);
    }
    backend.end();
    assert.equal((await reader.read()).done, true);
  });

  it('status and headers are there before the first event', async (t) => {
    const { gateway } = await setup(t, hangAfter([]));
    const response = await chat(gateway, { stream: true });
    assert.equal(response.status, 200);
    await response.body!.cancel();
  });

  it('the backend is asked not to compress', async (t) => {
    const { gateway, upstream } = await setup(t, stream(EVENTS));
    await (await chat(gateway, {}, { headers: { 'accept-encoding': 'gzip, br' } })).text();
    assert.equal(upstream.received[0]!.headers['accept-encoding'], 'identity');
  });
});

describe('checklist 2: [DONE] exactly once', () => {
  it('when the backend sends it', async (t) => {
    const { gateway } = await setup(t, stream(EVENTS));
    assert.equal(count(await (await chat(gateway)).text(), '[DONE]'), 1);
  });

  it('when the backend breaks off after it: the answer is complete', async (t) => {
    const { gateway } = await setup(t, cut(EVENTS));
    assert.equal(await (await chat(gateway)).text(), WHOLE);
    await metricReaches(
      gateway,
      'crystalkv_gateway_broken_streams_total{route="/v1/chat/completions",end="complete"}',
      1,
    );
  });

  it('a proper end without it is left as it is', async (t) => {
    const { gateway } = await setup(t, stream(['data: 1\n\n']));
    assert.equal(await (await chat(gateway)).text(), 'data: 1\n\n');
  });
});

describe('checklist 7: a backend that breaks off in mid-stream', () => {
  for (const path of ['/v1/chat/completions', '/v1/completions']) {
    it(`gives an error event and [DONE] on ${path}, and is counted`, async (t) => {
      const { gateway, upstream, log } = await setup(t, cut(EVENTS.slice(0, 2)));
      const response = await post(gateway, path, { stream: true });
      assert.equal(response.status, 200);
      const text = await response.text();
      assert.ok(text.startsWith(EVENTS.slice(0, 2).join('')));
      const [event, done, rest] = text.slice(EVENTS.slice(0, 2).join('').length).split('\n\n');
      const { error } = JSON.parse(event!.slice('data: '.length)) as ErrorAnswer;
      assert.equal(error.type, 'gateway_upstream_broken');
      assert.equal(error.code, 502);
      assert.deepEqual([done, rest], ['data: [DONE]', '']);
      await metricReaches(gateway, `crystalkv_gateway_broken_streams_total{route="${path}",end="told"}`, 1);
      const errors = `crystalkv_gateway_upstream_errors_total{backend="${upstream.url}",reason="reset"}`;
      assert.equal(await metric(gateway, errors), 1);
      const requests = `crystalkv_gateway_requests_total{route="${path}",status="200",outcome="broken"}`;
      assert.equal(await metric(gateway, requests), 1);
      assert.equal(log.find((line) => line['msg'] === 'request')?.['outcome'], 'broken');
    });
  }

  for (const open of ['data: {"cho', 'data: {"a":"\xe6\x97', 'data: {"a":1}\n', 'da']) {
    it(`keeps the error event readable after ${JSON.stringify(open)}`, async (t) => {
      const { gateway } = await setup(t, cut([EVENTS[0]!, Buffer.from(open, 'latin1')]));
      const text = await (await chat(gateway)).text();
      const events = text.split('\n\n').filter((event) => event !== '');
      for (const event of events.slice(0, -1)) JSON.parse(event.slice('data: '.length));
      assert.match(events.at(-2)!, /gateway_upstream_broken/);
      assert.equal(events.at(-1), 'data: [DONE]');
    });
  }

  for (const path of ['/v1/responses', '/v1/messages']) {
    it(`gives the API's own error event on ${path}, without [DONE]`, async (t) => {
      const { gateway } = await setup(t, cut(['event: x\ndata: {}\n\n']));
      const text = await (await post(gateway, path, { stream: true })).text();
      const type = path === '/v1/messages' ? 'api_error' : 'gateway_upstream_broken';
      assert.match(text, new RegExp(`\n\nevent: error\ndata: \\{"type":"error",.*${type}.*\\}\n\n$`));
      assert.equal(count(text, '[DONE]'), 0);
    });
  }

  it('never gives a clean end for a body that is not a stream', async (t) => {
    const { gateway } = await setup(t, cut(['{"choices":['], 'application/json'));
    const response = await chat(gateway);
    await assert.rejects(response.text());
    await metricReaches(gateway, 'crystalkv_gateway_broken_streams_total{route="/v1/chat/completions",end="reset"}', 1);
  });

  it('never gives a clean end to HTTP/1.0, where closing would be one', async (t) => {
    const { gateway } = await setup(t, cut(['{"choices":['], 'application/json'));
    const client = await rawClient(gateway.port);
    let reset = false;
    client.socket.on('error', (error: NodeJS.ErrnoException) => {
      reset = error.code === 'ECONNRESET';
    });
    client.write('POST /v1/completions HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}');
    await until(() => client.closed(), 'the connection is closed');
    assert.ok(reset);
  });

  for (const [ending, events] of [
    ['', 0],
    ['data: [DONE]\n\n', 1],
  ] as const) {
    it(`a stream that only a closed connection ends ${events === 1 ? 'is whole with' : 'is broken without'} [DONE]`, async (t) => {
      const upstream = await createRawUpstream(
        `HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n${ending}`,
      );
      const { gateway } = await startGateway({ backends: [upstream.url] });
      t.after(() => Promise.all([gateway.close(), upstream.close()]));
      const text = await (await chat(gateway)).text();
      assert.equal(count(text, '[DONE]'), 1);
      assert.equal(count(text, 'gateway_upstream_broken'), 1 - events);
    });
  }

  for (const [path, first, last] of [
    ['/v1/responses', 'response.created', 'response.completed'],
    ['/v1/messages', 'message_start', 'message_stop'],
  ] as const) {
    it(`one of ${path} is broken without ${last}, and whole with it`, async (t) => {
      for (const whole of [false, true]) {
        const events = [first, ...(whole ? [last] : [])].map((name) => `event: ${name}\ndata: {"type":"${name}"}\n\n`);
        const upstream = await createRawUpstream(
          `HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n${events.join('')}`,
        );
        const { gateway } = await startGateway({ backends: [upstream.url] });
        t.after(() => Promise.all([gateway.close(), upstream.close()]));
        const text = await (await post(gateway, path, { stream: true })).text();
        assert.ok(text.startsWith(events.join('')));
        assert.equal(count(text, 'event: error'), whole ? 0 : 1);
      }
    });
  }

  it('a backend that stops sending is cut after idle_ms', async (t) => {
    const { gateway, upstream } = await setup(t, hangAfter([EVENTS[0]!]), { timeouts: { idle_ms: 100 } });
    const text = await (await chat(gateway)).text();
    assert.match(text, /gateway_upstream_timeout/);
    assert.equal(count(text, 'data: [DONE]\n\n'), 1);
    await until(() => upstream.received[0]!.aborted, 'the backend’s connection is closed');
  });
});
