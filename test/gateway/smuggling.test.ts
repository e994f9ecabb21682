import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { until } from '../support/until.ts';
import { chat, type ErrorAnswer, setup } from './harness.ts';
import { json, rawClient } from './upstream.ts';

/** Sends bytes as they are, and gives all that came back once the connection has closed. */
async function exchange(t: TestContext, bytes: string | Buffer, config: Record<string, unknown> = {}) {
  const { gateway, upstream } = await setup(t, json('{"ok":1}'), config);
  const client = await rawClient(gateway.port);
  client.write(bytes);
  // What waits for more is cut by the client, as a load balancer would.
  await until(() => client.closed() || /[}]|\r\n\r\n$/.test(client.text()), 'an answer or a closed connection');
  client.socket.end();
  await until(() => client.closed(), 'the connection is closed');
  // The gateway still serves.
  assert.equal((await chat(gateway)).status, 200);
  const urls = upstream.received.slice(0, -1).map(({ method, url }) => `${method} ${url}`);
  return { text: client.text(), urls, received: upstream.received.slice(0, -1) };
}

const CHAT = 'POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n';
const INNER = 'POST /sleep HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n';

describe('request smuggling never reaches a closed path', () => {
  for (const [name, bytes] of [
    [
      'content-length and transfer-encoding',
      `${CHAT}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${INNER}`,
    ],
    [
      'transfer-encoding and content-length',
      `${CHAT}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n${INNER}`,
    ],
    ['two content-lengths', `${CHAT}Content-Length: 2\r\nContent-Length: 0\r\n\r\n${INNER}`],
    ['two values in one content-length', `${CHAT}Content-Length: 2, 2\r\n\r\n{}${INNER}`],
    ['a negative content-length', `${CHAT}Content-Length: -1\r\n\r\n${INNER}`],
    ['a content-length with a sign', `${CHAT}Content-Length: +2\r\n\r\n{}`],
    ['a content-length in hex', `${CHAT}Content-Length: 0x2\r\n\r\n{}`],
    [
      'two transfer-encodings',
      `${CHAT}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n${INNER}`,
    ],
    ['an unknown transfer-encoding', `${CHAT}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${INNER}`],
    ['chunked not last', `${CHAT}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n${INNER}`],
    ['a space before the colon', `${CHAT}Content-Length : 2\r\n\r\n{}`],
    ['a folded header', `${CHAT}X: a\r\n Content-Length: 0\r\nTransfer-Encoding:\r\n chunked\r\n\r\n`],
    ['a bare line feed in a header', `${CHAT}X: a\nContent-Length: 2\r\n\r\n{}`],
    ['a bare carriage return in a header', `${CHAT}X: a\rContent-Length: 2\r\n\r\n{}`],
    ['a zero byte in a header', `${CHAT}X: a\0b\r\nContent-Length: 2\r\n\r\n{}`],
    ['a chunk size that is no number', `${CHAT}Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`],
    ['a chunk size with a sign', `${CHAT}Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n`],
    ['a chunk size that overflows', `${CHAT}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff2\r\n{}\r\n0\r\n\r\n`],
    ['a chunk longer than its size', `${CHAT}Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n${INNER}`],
    ['a chunk that ends in a bare line feed', `${CHAT}Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n${INNER}`],
    ['HTTP/2 without being asked', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['an unknown version', 'POST /v1/chat/completions HTTP/9.9\r\nHost: h\r\n\r\n'],
    ['an unknown method', 'SPY /v1/models HTTP/1.1\r\nHost: h\r\n\r\n'],
    ['bytes that are not HTTP', Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03])],
  ] as const) {
    it(`${name}: refused, the connection is closed, the backend hears nothing`, async (t) => {
      const { text, urls } = await exchange(t, bytes);
      assert.deepEqual(urls, []);
      assert.match(text, /^HTTP\/1\.1 400 /);
      const answers = text.split('HTTP/1.1 ').length - 1;
      assert.equal(answers, 1, text);
      const { error } = JSON.parse(text.split('\r\n\r\n')[1]!) as ErrorAnswer;
      assert.deepEqual([error.type, error.code], ['gateway_malformed_http', 400]);
      assert.match(text, /connection: close/i);
    });
  }

  it('no host is refused, and of two the backend sees neither', async (t) => {
    const { text, urls } = await exchange(t, 'GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n');
    assert.match(text, /^HTTP\/1\.1 400 /);
    assert.deepEqual(urls, []);
    const request = 'GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n';
    const { received } = await exchange(t, request);
    const hosts = received[0]!.rawHeaders.filter((_, i, raw) => i % 2 === 1 && raw[i - 1]!.toLowerCase() === 'host');
    assert.equal(hosts.length, 1);
    assert.match(hosts[0]!, /^127\.0\.0\.1:/);
  });

  it('a body on a path that takes none is not the next request', async (t) => {
    const { urls } = await exchange(
      t,
      `GET /v1/models HTTP/1.1\r\nHost: h\r\nContent-Length: ${INNER.length}\r\n\r\n${INNER}`,
    );
    assert.deepEqual(urls, ['GET /v1/models']);
  });

  it('what follows a complete request is another one, and has to be allowed itself', async (t) => {
    const { urls, text } = await exchange(
      t,
      `${INNER}${INNER}GET /v1/models HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`,
    );
    assert.ok(urls.every((url) => url === 'GET /v1/models'));
    assert.match(text, /^HTTP\/1\.1 404 /);
  });

  it('chunks reach the backend framed anew, without extensions and trailers', async (t) => {
    const body = '2;x="GET /sleep"\r\n{"\r\n5\r\na":1}\r\n0\r\nX-Trailer: GET /sleep\r\n\r\n';
    const { received } = await exchange(t, `${CHAT}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n${body}`);
    assert.equal(received.length, 1);
    assert.equal(received[0]!.headers['transfer-encoding'], undefined);
    assert.equal(received[0]!.headers['content-length'], String(received[0]!.body.length));
    assert.match(received[0]!.body.toString(), /"a":1\}$/);
    assert.equal(received[0]!.headers['x-trailer'], undefined);
  });

  it('headers of one name stay apart; forged ones of the gateway’s do not pass', async (t) => {
    const { received } = await exchange(
      t,
      `${CHAT}X-A: 1\r\nX-A: 2\r\nX-Request-Id: a\r\nX-Request-Id: b\r\nX-CrystalKV-Id: c\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`,
    );
    const raw = received[0]!.rawHeaders;
    const values = (wanted: string) => raw.filter((_, i) => i % 2 === 1 && raw[i - 1]!.toLowerCase() === wanted);
    assert.deepEqual(values('x-a'), ['1', '2']);
    assert.equal(values('x-request-id').length, 1);
    assert.match(values('x-request-id')[0]!, /^req-/);
    assert.deepEqual(values('x-crystalkv-id'), []);
    assert.equal(values('host').length, 1);
  });
});

describe('path tricks never reach a closed path', () => {
  for (const target of [
    '//sleep',
    '/v1//models',
    '/v1/../sleep',
    '/v1/models/../../sleep',
    '/v1/./models',
    '/v1/models/..',
    '/v1/models/.',
    '/v1/models/%2e%2e/%2e%2e/sleep',
    '/v1/models/%2E%2E%2F%2E%2E%2Fsleep',
    '/v1/models/..%5c..%5csleep',
    '/v1%2fmodels',
    '/%76%31/models',
    '/v1/models%00',
    '/v1/models;/../../sleep',
    '/v1/models%2f..%2f..%2fsleep',
    '/v1/models\\..\\..\\sleep',
    '/sleep?x=/v1/models',
    '/sleep#/v1/models',
    '/SLEEP',
    'http://127.0.0.1/sleep',
    'http://h//sleep',
    'sleep',
    '*',
  ]) {
    for (const method of ['GET', 'POST']) {
      it(`${method} ${target}`, async (t) => {
        const { text, urls } = await exchange(
          t,
          `${method} ${target} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
        );
        assert.deepEqual(urls, []);
        assert.match(text, /^HTTP\/1\.1 (400|404|405) /);
        const { error } = JSON.parse(text.split('\r\n\r\n')[1]!) as ErrorAnswer;
        assert.match(error.type, /^gateway_(malformed_http|malformed_url|not_found|method_not_allowed)$/);
      });
    }
  }
});

describe('header limits', () => {
  it('of 16 KiB together: then 431', async (t) => {
    const { text, urls } = await exchange(t, `${CHAT}X: ${'a'.repeat(20_000)}\r\nContent-Length: 2\r\n\r\n{}`);
    assert.deepEqual(urls, []);
    assert.match(text, /^HTTP\/1\.1 431 /);
    assert.equal((JSON.parse(text.split('\r\n\r\n')[1]!) as ErrorAnswer).error.type, 'gateway_headers_too_large');
  });

  it('hold for the address too', async (t) => {
    const { text } = await exchange(t, `GET /v1/models?${'a'.repeat(20_000)} HTTP/1.1\r\nHost: h\r\n\r\n`);
    assert.match(text, /^HTTP\/1\.1 431 /);
  });
});

describe('no tunnels: WebSocket and realtime are a 404 in OpenAI’s shape', () => {
  const KEY = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n';
  for (const [name, bytes] of [
    [
      'an upgrade to WebSocket',
      `GET /v1/realtime?model=m HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${KEY}\r\n`,
    ],
    ['realtime without an upgrade', 'GET /v1/realtime HTTP/1.1\r\nHost: h\r\n\r\n'],
    ['CONNECT', 'CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: h\r\n\r\n'],
  ] as const) {
    it(name, async (t) => {
      const { text, urls } = await exchange(t, bytes);
      assert.deepEqual(urls, []);
      assert.match(text, /^HTTP\/1\.1 404 /);
      assert.equal((JSON.parse(text.split('\r\n\r\n')[1]!) as ErrorAnswer).error.type, 'gateway_not_found');
    });
  }

  it('an upgrade on a path that is served is an ordinary request', async (t) => {
    const { text, received } = await exchange(
      t,
      'GET /v1/models HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n',
    );
    assert.match(text, /^HTTP\/1\.1 200 /);
    assert.equal(received[0]!.headers.upgrade, undefined);
  });
});
