import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { gatewaySchema } from '../../gateway/config.ts';
import { chat, post, startGateway } from '../gateway/harness.ts';
import { createUpstream, json, stream } from '../gateway/upstream.ts';
import { bearer, folder, newKey, setupKeyed } from './harness.ts';

const OK = json('{"ok":true}', 200, { vary: 'Accept', 'access-control-allow-origin': '*' });
const PAGE = 'https://app.example';
const NO_OPENSSL = spawnSync('openssl', ['version']).error === undefined ? false : 'openssl is not installed';

describe('TLS', { skip: NO_OPENSSL }, () => {
  const certificate = (place: string, name: string) => {
    const files = { cert: join(place, `${name}.pem`), key: join(place, `${name}-key.pem`) };
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1'];
    const out = ['-keyout', files.key, '-out', files.cert, '-subj', `/CN=${name}`];
    execFileSync('openssl', ['req', '-x509', ...kind, ...out], { stdio: 'ignore' });
    return files;
  };

  /** The name on the certificate that a new connection gets, and the answer. */
  const ask = (url: string, path: string) =>
    new Promise<{ name: string; text: string }>((resolve, reject) => {
      const sent = request(`${url}${path}`, { rejectUnauthorized: false, agent: false, method: 'POST' }, (response) => {
        const name = String((response.socket as TLSSocket).getPeerCertificate().subject.CN);
        let text = '';
        response.on('data', (chunk: Buffer) => {
          text += chunk.toString();
        });
        response.on('end', () => resolve({ name, text }));
      });
      sent.on('error', reject);
      sent.end('{"stream":true}');
    });

  const start = async (t: TestContext, tls: object) => {
    const upstream = await createUpstream(stream(['data: 1\n\n', 'data: [DONE]\n\n']));
    t.after(() => upstream.close());
    const config = { backends: [upstream.url], tls };
    const started = await startGateway(config);
    t.after(() => started.gateway.close());
    return { ...started, config };
  };

  it('serves streams, and a replaced certificate after a reload; a broken one changes nothing', async (t) => {
    const place = folder(t);
    const [first, second] = [certificate(place, 'first'), certificate(place, 'second')];
    const { gateway, config, log } = await start(t, first);
    assert.match(gateway.url, /^https:/);
    assert.deepEqual(await ask(gateway.url, '/v1/completions'), { name: 'first', text: 'data: 1\n\ndata: [DONE]\n\n' });
    const again = gatewaySchema.parse(config);
    copyFileSync(second.cert, first.cert);
    gateway.reload(again);
    assert.equal((await ask(gateway.url, '/v1/completions')).name, 'first');
    assert.ok(log.some(({ msg }) => msg === 'cannot reload the certificate; the old one stays in use'));
    copyFileSync(second.key, first.key);
    gateway.reload(again);
    assert.equal((await ask(gateway.url, '/v1/completions')).name, 'second');
  });

  it('with a missing file does not start, and names option and file', async (t) => {
    const { cert } = certificate(folder(t), 'first');
    await assert.rejects(start(t, { cert, key: '/nowhere.pem' }), /gateway\.tls\.key: cannot read \/nowhere\.pem/);
    assert.throws(() => gatewaySchema.parse({ tls: { cert } }), /set both cert and key, or neither/);
  });
});

describe('CORS', () => {
  const cors = { cors: { origins: [PAGE] } };
  const preflight = (url: string, origin: string, asked: string) =>
    fetch(`${url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': asked },
    });
  /** What OpenAI's client sends from a browser. */
  const ASKED =
    'authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout';

  it('off: no page may read an answer, whatever the backend says', async (t) => {
    const key = newKey('page');
    const { gateway } = await setupKeyed(t, OK, [key]);
    const response = await chat(gateway, {}, { headers: { origin: PAGE, ...bearer(key).headers } });
    assert.equal(response.headers.get('access-control-allow-origin'), null);
    assert.equal(response.headers.get('vary'), 'Accept');
    const answer = await preflight(gateway.url, PAGE, ASKED);
    assert.equal(answer.headers.get('access-control-allow-origin'), null);
  });

  it('a preflight of an allowed page gets the headers that it asks for, without a key and without a backend', async (t) => {
    const { gateway, upstream } = await setupKeyed(t, OK, [], cors);
    const answer = await preflight(gateway.url, PAGE, ASKED);
    assert.equal(answer.status, 204);
    assert.equal(answer.headers.get('access-control-allow-origin'), PAGE);
    assert.equal(answer.headers.get('access-control-allow-headers'), ASKED);
    assert.match(answer.headers.get('access-control-allow-methods') ?? '', /POST/);
    assert.equal(answer.headers.get('vary'), 'Origin');
    assert.equal(upstream.received.length, 0);
  });

  it('an allowed page may read answers, streams and errors, with the headers that clients look at', async (t) => {
    const key = newKey('page', { requests_per_minute: 5 });
    const { gateway, upstream } = await setupKeyed(t, OK, [key], cors);
    const headers = { origin: PAGE, ...bearer(key).headers };
    upstream.script = OK;
    for (const response of [
      await chat(gateway, { model: 'm' }, { headers }),
      await chat(gateway, { model: 'm' }, { headers: { origin: PAGE } }),
      await post(gateway, '/nowhere', {}, { headers }),
    ]) {
      assert.equal(response.headers.get('access-control-allow-origin'), PAGE);
      assert.match(
        response.headers.get('access-control-expose-headers') ?? '',
        /x-request-id.*x-ratelimit-reset-tokens/,
      );
      assert.match(response.headers.get('vary') ?? '', /Origin$/);
    }
  });

  it('another page gets nothing, but caches are told', async (t) => {
    const { gateway } = await setupKeyed(t, OK, [], cors);
    const response = await chat(gateway, {}, { headers: { origin: 'https://evil.example' } });
    assert.equal(response.headers.get('access-control-allow-origin'), null);
    assert.match(response.headers.get('vary') ?? '', /Origin/);
    assert.equal(
      (await preflight(gateway.url, 'https://evil.example', ASKED)).headers.get('access-control-allow-headers'),
      null,
    );
  });

  it('refuses what is no origin', () => {
    for (const origin of ['app.example', 'https://app.example/', 'null']) {
      assert.throws(() => gatewaySchema.parse({ cors: { origins: [origin] } }), /must be an origin such as/);
    }
  });
});
