import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { credentials, status } from '@grpc/grpc-js';
import { ConfigError } from '../../common/config.ts';
import { KvPolicyClient } from '../../proto/gen/crystalkv/v1/policy.ts';
import { engineFor, serviceFor, startService } from './scripted-engine.ts';

const token = 'a-shared-token-of-some-length';

test('beyond loopback the service refuses to start without TLS and token, and says what it needs', async () => {
  await assert.rejects(startService({ host: '0.0.0.0' }), (error) => {
    assert.ok(error instanceof ConfigError);
    return /policy_service.host is "0.0.0.0": to listen on a public address, set tls.cert and tls.key, or auth_token/.test(
      error.message,
    );
  });
});

test('beyond loopback a token suffices', async (context) => {
  const server = await serviceFor(context, { host: '0.0.0.0', auth_token: token });
  await engineFor(context, `127.0.0.1:${server.port}`, token).greet();
});

test('without the token, or with another one, nothing is answered', async (context) => {
  const server = await serviceFor(context, { auth_token: token });
  for (const given of [undefined, `${token}x`, '']) {
    const engine = engineFor(context, server.address, given);
    const error = await engine.failure();
    assert.equal(error.code, status.UNAUTHENTICATED);
    assert.doesNotMatch(error.details, new RegExp(token));
    const code = await new Promise((resolve) => engine.client.getEngines({}, (failure) => resolve(failure?.code)));
    assert.equal(code, status.UNAUTHENTICATED);
  }
});

test('half a key pair and an unreadable file are refused by name', async () => {
  await assert.rejects(startService({ tls: { cert: 'a.pem' } }), /tls needs both cert and key/);
  await assert.rejects(startService({ tls: { client_ca: 'a.pem' } }), /tls.client_ca needs cert and key/);
  await assert.rejects(
    startService({ tls: { cert: '/no/such.pem', key: '/no/such.pem' } }),
    /tls\.(cert|key) cannot be read/,
  );
});

test('with TLS the service answers those who trust its certificate, and nobody in the clear', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'policy-tls-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1'];
  try {
    execFileSync('openssl', ['req', '-x509', ...kind, '-keyout', key, '-out', cert, ...subject], { stdio: 'ignore' });
  } catch {
    context.skip('openssl is not installed');
    return;
  }
  const server = await serviceFor(context, { host: '127.0.0.1', tls: { cert, key } });
  const trusting = new KvPolicyClient(server.address, credentials.createSsl(readFileSync(cert)));
  context.after(() => trusting.close());
  const answer = await new Promise((resolve) => trusting.getEngines({}, (error) => resolve(error)));
  assert.equal(answer, null);
  const plain = new KvPolicyClient(server.address, credentials.createInsecure());
  context.after(() => plain.close());
  const code = await new Promise((resolve) => plain.getEngines({}, (error) => resolve(error?.code)));
  assert.equal(code, status.UNAVAILABLE);
});

test('a port that is taken is named', async (context) => {
  const first = await serviceFor(context);
  await assert.rejects(startService({ port: first.port }), new RegExp(`cannot listen on 127.0.0.1:${first.port}`));
});
