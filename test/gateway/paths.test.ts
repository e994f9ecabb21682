import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ROUTES } from '../../gateway/routes.ts';
import { until } from '../support/until.ts';
import { type ErrorAnswer, metricReaches, setup } from './harness.ts';
import { json, rawClient } from './upstream.ts';

const CLOSED = [
  '/reset_prefix_cache',
  '/reset_mm_cache',
  '/pause',
  '/resume',
  '/sleep',
  '/wake_up',
  '/is_sleeping',
  '/collective_rpc',
  '/server_info',
  '/update_weights',
  '/v1/load_lora_adapter',
  '/v1/unload_lora_adapter',
  '/docs',
  '/V1/models',
  '/v1/models/',
  '//v1/models',
  '/v1/models/..%2f..%2fsleep',
  '/v1/models/%2e%2e',
  '/v1/models/a%5c..%5csleep',
  '/v1/models/%252e%252e%252fsleep',
  '/v1/models/a%25252Fsleep',
];

describe('checklist 11: paths and methods', () => {
  for (const { method, path } of ROUTES) {
    it(`${method} ${path} reaches the backend`, async (t) => {
      const { gateway, upstream } = await setup(t, json('{}'));
      const url = gateway.url + path.replace(':id', 'name');
      const response = await fetch(url, { method, ...(method === 'POST' && { body: '{}' }) });
      assert.equal(response.status, 200);
      assert.deepEqual(
        [upstream.received[0]?.method, upstream.received[0]?.url],
        [method, path.replace(':id', 'name')],
      );
    });
  }

  it('a model with a slash in its name is found, encoded or not, and nothing is reached through it', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    for (const name of ['org/name', 'org%2Fname']) {
      assert.equal((await fetch(`${gateway.url}/v1/models/${name}`)).status, 200);
      assert.equal(upstream.received.at(-1)?.url, `/v1/models/${name}`);
    }
    const client = await rawClient(gateway.port);
    client.write('GET /v1/models/a/../../sleep HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n');
    await until(() => client.closed(), 'the answer is complete');
    assert.match(client.text(), /^HTTP\/1\.1 404 /);
    assert.equal(upstream.received.length, 2);
  });

  it('development paths and everything unknown are 404 in OpenAI’s shape', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    for (const path of CLOSED) {
      for (const method of ['GET', 'POST']) {
        const client = await rawClient(gateway.port);
        client.write(`${method} ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
        await until(() => client.closed(), 'the answer is complete');
        const [head, body] = client.text().split('\r\n\r\n');
        if (method === 'POST' && head!.includes(' 405 ')) continue;
        assert.match(head!, /^HTTP\/1\.1 404 /, `${method} ${path}`);
        assert.match(head!, /x-request-id: req-/);
        const { error } = JSON.parse(body!) as ErrorAnswer;
        assert.deepEqual([error.type, error.code, error.param], ['gateway_not_found', 404, null]);
      }
    }
    assert.equal(upstream.received.length, 0);
    await metricReaches(
      gateway,
      'crystalkv_gateway_requests_total{route="other",status="404",outcome="client_error"}',
      CLOSED.filter((path) => !path.includes('%')).length * 2,
    );
  });

  it('a model whose name is dots is a 404 too where models have aliases', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'), { models: { aliases: { short: 'long' } } });
    const client = await rawClient(gateway.port);
    client.write('GET /v1/models/%2e%2e HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n');
    await until(() => client.closed(), 'the answer is complete');
    assert.match(client.text(), /^HTTP\/1\.1 404 /);
    assert.deepEqual(upstream.received, []);
  });

  it('an address that does not decode is a 400', async (t) => {
    const { gateway } = await setup(t, json('{}'));
    const response = await fetch(`${gateway.url}/v1/models/%zz`);
    assert.equal(response.status, 400);
    assert.equal(((await response.json()) as ErrorAnswer).error.type, 'gateway_malformed_url');
  });

  for (const [method, path, allow] of [
    ['GET', '/v1/chat/completions', 'POST, OPTIONS'],
    ['HEAD', '/v1/chat/completions', 'POST, OPTIONS'],
    ['DELETE', '/v1/models/x', 'GET, HEAD, OPTIONS'],
    ['PUT', '/v1/models', 'GET, HEAD, OPTIONS'],
    ['POST', '/health', 'GET, HEAD, OPTIONS'],
    ['POST', '/metrics', 'GET, HEAD, OPTIONS'],
  ] as const) {
    it(`${method} ${path} is a 405 with Allow`, async (t) => {
      const { gateway, upstream } = await setup(t, json('{}'));
      const response = await fetch(gateway.url + path, { method });
      assert.equal(response.status, 405);
      assert.equal(response.headers.get('allow'), allow);
      const text = await response.text();
      if (method === 'HEAD') assert.equal(text, '');
      else assert.equal((JSON.parse(text) as ErrorAnswer).error.type, 'gateway_method_not_allowed');
      assert.equal(upstream.received.length, 0);
    });
  }

  it('OPTIONS tells what is allowed', async (t) => {
    const { gateway } = await setup(t, json('{}'));
    const response = await fetch(`${gateway.url}/v1/completions`, { method: 'OPTIONS' });
    assert.equal(response.status, 204);
    assert.equal(response.headers.get('allow'), 'POST, OPTIONS');
  });

  it('HEAD is GET without the body, and the connection can be used again', async (t) => {
    const { gateway, upstream } = await setup(t, json('{"data":[]}', 200, { 'content-length': '11' }));
    const client = await rawClient(gateway.port);
    client.write('HEAD /v1/models HTTP/1.1\r\nHost: h\r\n\r\n');
    await until(() => client.text().endsWith('\r\n\r\n'), 'the head');
    assert.match(client.text(), /^HTTP\/1\.1 200 [\s\S]*content-length: 11\r\n/);
    client.write('GET /v1/models HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n');
    await until(() => client.closed(), 'the second answer');
    assert.ok(client.text().endsWith('{"data":[]}'));
    assert.deepEqual(
      upstream.received.map(({ method }) => method),
      ['GET', 'GET'],
    );
  });

  it('the gateway’s own paths answer', async (t) => {
    const { gateway } = await setup(t, json('{}'));
    for (const path of ['/health', '/ready', '/metrics', '/openapi.json']) {
      assert.equal((await fetch(gateway.url + path)).status, 200, path);
    }
  });
});
