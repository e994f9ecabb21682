import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ErrorAnswer } from '../gateway/harness.ts';
import { listening, run } from '../gateway/program.ts';
import { createUpstream, json, rawClient } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';

const LIMIT = 4096;
const CHAT = 'POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n';

describe('bounds of a request, with the gateway as a process of its own', () => {
  it('headers and bodies beyond them are refused before the backend hears of it, and the next request is served', async (t) => {
    const upstream = await createUpstream(json('{"ok":true}'));
    t.after(() => upstream.close());
    const program = await run(t, {
      CRYSTALKV_GATEWAY_PORT: '0',
      CRYSTALKV_GATEWAY_BACKENDS: `[${upstream.url}]`,
      CRYSTALKV_GATEWAY_BODY_LIMIT_BYTES: `${LIMIT}`,
      CRYSTALKV_GATEWAY_ADMISSION_EVENT_LOOP_DELAY_MS: '0',
    });
    const url = await listening(program);
    const chunk = `800\r\n${' '.repeat(0x800)}\r\n`;
    for (const [what, bytes, status, type] of [
      ['a header of 20 kB', `${CHAT}X: ${'a'.repeat(20_000)}\r\n\r\n`, 431, 'headers_too_large'],
      ['5,000 headers', `${CHAT}${'X: a\r\n'.repeat(5_000)}\r\n`, 431, 'headers_too_large'],
      ['an address of 20 kB', `GET /v1/models?${'a'.repeat(20_000)} HTTP/1.1\r\n\r\n`, 431, 'headers_too_large'],
      ['an announced body', `${CHAT}Content-Length: ${LIMIT + 1}\r\n\r\n`, 413, 'body_too_large'],
      ['a body in chunks', `${CHAT}Transfer-Encoding: chunked\r\n\r\n${chunk.repeat(3)}`, 413, 'body_too_large'],
      [
        'an upload',
        `POST /v1/audio/transcriptions HTTP/1.1\r\nHost: h\r\nContent-Length: ${LIMIT + 1}\r\n\r\n`,
        413,
        'body_too_large',
      ],
    ] as const) {
      const client = await rawClient(Number(new URL(url).port));
      client.write(bytes);
      await until(() => client.text().includes('"error"'), `${what} is refused`);
      const [head = '', body = ''] = client.text().split('\r\n\r\n');
      assert.match(head, new RegExp(`^HTTP/1\\.1 ${status} `), what);
      assert.equal((JSON.parse(body) as ErrorAnswer).error.type, `gateway_${type}`, what);
      client.socket.destroy();
    }
    assert.equal(upstream.arriving.length, 0);
    const body = '{'.padEnd(LIMIT - 1, ' ');
    const response = await fetch(`${url}/v1/chat/completions`, { method: 'POST', body: `${body}}` });
    assert.deepEqual([response.status, await response.text()], [200, '{"ok":true}']);
    assert.equal(await until(() => upstream.received[0]?.method, 'the backend has one'), 'POST');
    assert.match(await (await fetch(`${url}/metrics`)).text(), /^crystalkv_gateway_inflight 0$/m);
  });
});
