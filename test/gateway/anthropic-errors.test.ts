import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bearer, newKey, setupKeyed } from '../gateway-keys/harness.ts';
import { post } from './harness.ts';
import { json } from './upstream.ts';

describe('errors of the gateway on the messages API', () => {
  const key = newKey('team', { requests_per_minute: 1 });

  it('have the shape and the types that its clients know', async (t) => {
    const { gateway } = await setupKeyed(t, json('{}'), [key], { body_limit_bytes: 1024 });
    const ask = async (body: string, init: RequestInit = {}, path = '/v1/messages') => {
      const response = await post(gateway, path, body, init);
      const { type, error } = (await response.json()) as { type: string; error: { type: string; message: string } };
      assert.equal(typeof error.message, 'string');
      return [response.status, type, error.type];
    };
    assert.deepEqual(await ask('{}'), [401, 'error', 'authentication_error']);
    assert.deepEqual(await ask('{}', {}, '/v1/messages/count_tokens'), [401, 'error', 'authentication_error']);
    assert.deepEqual(await ask('{', bearer(key)), [400, 'error', 'invalid_request_error']);
    assert.deepEqual(await ask(' '.repeat(2000), bearer(key)), [413, 'error', 'request_too_large']);
    assert.equal((await post(gateway, '/v1/messages', '{}', bearer(key))).status, 200);
    assert.deepEqual(await ask('{}', bearer(key)), [429, 'error', 'rate_limit_error']);
    assert.deepEqual(await ask('{}', bearer(key), '/v1/messages/nothing'), [404, 'error', 'not_found_error']);
  });

  it('have that of OpenAI elsewhere', async (t) => {
    const { gateway } = await setupKeyed(t, json('{}'), [key]);
    const response = await post(gateway, '/v1/chat/completions', '{}');
    const { error } = (await response.json()) as { error: { code: string } };
    assert.equal(error.code, 'invalid_api_key');
  });
});
