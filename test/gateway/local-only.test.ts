import assert from 'node:assert/strict';
import { request } from 'node:http';
import { describe, it } from 'node:test';
import type { Gateway } from '../../gateway/gateway.ts';
import { newKey, setupKeyed } from '../gateway-keys/harness.ts';
import { setup } from './harness.ts';
import { json } from './upstream.ts';

const OK = json('{"ok":true}');

/** The status of a request with these headers, which fetch would not let a program set. */
function status(gateway: Gateway, method: string, path: string, headers: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(`${gateway.url}${path}`, { method, headers }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    sent.on('error', reject);
    sent.end(method === 'POST' ? '{"model":"m"}' : undefined);
  });
}

const CHAT = ['POST', '/v1/chat/completions'] as const;
const REFUSED: Record<string, string>[] = [
  { host: 'evil.example' },
  { host: 'evil.example:8080' },
  { host: '127.0.0.1.evil.example' },
  { host: 'localhost', origin: 'https://evil.example', 'content-type': 'text/plain' },
  { host: 'localhost', origin: 'null' },
  { host: 'localhost', 'sec-fetch-site': 'cross-site' },
];
const SERVED: Record<string, string>[] = [
  { host: 'localhost:8080' },
  { host: '127.0.0.1' },
  { host: '[::1]:8080' },
  { host: '192.0.2.7:8080' },
  { host: 'gateway' },
  { host: 'localhost:8080', origin: 'http://localhost:8080', 'sec-fetch-site': 'same-origin' },
  { host: 'localhost:8080', origin: 'http://localhost:3000' },
];

describe('a gateway without keys on loopback', () => {
  it('refuses names of the web and pages of other sites, on every path', async (t) => {
    const { gateway, upstream } = await setup(t, OK);
    for (const headers of REFUSED) {
      for (const [method, path] of [
        CHAT,
        ['GET', '/v1/models'],
        ['GET', '/metrics'],
        ['GET', '/ui/api/setup'],
      ] as const) {
        assert.equal(await status(gateway, method, path, headers), 403, `${path} ${JSON.stringify(headers)}`);
      }
    }
    assert.ok(!upstream.received.some(({ method }) => method === 'POST'));
  });

  it('serves programs, and its own page', async (t) => {
    const { gateway } = await setup(t, OK);
    for (const headers of SERVED) assert.equal(await status(gateway, ...CHAT, headers), 200, JSON.stringify(headers));
    const link = { host: 'localhost', 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' };
    assert.equal(await status(gateway, 'GET', '/ui', link), 200);
  });

  it('serves what the configuration names', async (t) => {
    const named = await setup(t, OK, { allowed_hosts: ['gw.example'], cors: { origins: ['https://app.example'] } });
    assert.equal(await status(named.gateway, ...CHAT, { host: 'GW.example:80', origin: 'https://app.example' }), 200);
    assert.equal(await status(named.gateway, ...CHAT, { host: 'evil.example' }), 403);
    const all = await setup(t, OK, { allowed_hosts: ['*'] });
    assert.equal(await status(all.gateway, ...CHAT, { host: 'evil.example' }), 200);
  });

  it('with keys needs nothing of it', async (t) => {
    const key = newKey('any');
    const { gateway } = await setupKeyed(t, OK, [key]);
    const headers = { host: 'gw.example', authorization: `Bearer ${key.secret}` };
    assert.equal(await status(gateway, ...CHAT, headers), 200);
  });
});
