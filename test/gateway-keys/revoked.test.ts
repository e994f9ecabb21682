import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { chat, type ErrorAnswer, metricReaches } from '../gateway/harness.ts';
import { hang, hangAfter } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';
import { bearer, newKey, setupKeyed } from './harness.ts';

const EVENT = 'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n';

describe('a key that is revoked while its requests run', () => {
  it('ends their streams with an error event, and no stream of another key', async (t) => {
    const [revoked, other] = [newKey('revoked'), newKey('other')];
    const { gateway, upstream, store } = await setupKeyed(t, hangAfter([EVENT]), [revoked, other]);
    const [ended, goesOn] = await Promise.all(
      [revoked, other].map((key) => chat(gateway, { stream: true }, bearer(key))),
    );
    await store.remove(revoked.entry.id);
    const text = await ended!.text();
    assert.ok(text.startsWith(EVENT));
    assert.match(text, /^data: \{"error":\{"message":"the API key has been revoked".*\}\n\ndata: \[DONE\]\n\n$/m);
    await until(() => upstream.received.filter(({ aborted }) => aborted).length === 1, 'the backend is told');
    assert.equal(new TextDecoder().decode((await goesOn!.body!.getReader().read()).value), EVENT);
    await metricReaches(gateway, 'crystalkv_gateway_broken_streams_total{route="/v1/chat/completions",end="told"}', 1);
  });

  it('answers 401 to those that have no response yet', async (t) => {
    const key = newKey('revoked');
    const { gateway, upstream, store } = await setupKeyed(t, hang, [key]);
    const answer = chat(gateway, {}, bearer(key));
    await until(() => upstream.received.length === 1, 'the backend has it');
    await store.remove(key.entry.id);
    const response = await answer;
    assert.equal(response.status, 401);
    assert.equal(((await response.json()) as ErrorAnswer).error.message, 'the API key has been revoked');
  });

  for (const path of ['/v1/chat/completions', '/v1/audio/transcriptions']) {
    it(`ends what is still being uploaded to ${path}`, async (t) => {
      const key = newKey('revoked');
      const { gateway, store } = await setupKeyed(t, hang, [key]);
      const socket = connect(gateway.port, '127.0.0.1');
      t.after(() => socket.destroy());
      let answer = '';
      let closed = false;
      socket
        .on('data', (bytes: Buffer) => {
          answer += bytes.toString();
        })
        .on('error', () => {})
        .on('close', () => {
          closed = true;
        });
      socket.write(
        `POST ${path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer ${key.secret}\r\n` +
          'content-type: multipart/form-data; boundary=b\r\ncontent-length: 100000\r\n\r\n{',
      );
      const more = setInterval(() => socket.write('x'), 100);
      t.after(() => clearInterval(more));
      await metricReaches(gateway, 'crystalkv_gateway_inflight', 1);
      await store.remove(key.entry.id);
      await until(() => answer.startsWith('HTTP/1.1 401'), 'the key is refused');
      await until(() => closed, 'the connection is closed');
    });
  }

  it('ends the streams of the live page', async (t) => {
    const key = newKey('revoked');
    const { gateway, store } = await setupKeyed(t, hang, [key], { ui: { enabled: 'on' } });
    const page = await fetch(`${gateway.url}/ui/api/events`, bearer(key));
    assert.equal(page.status, 200);
    await store.remove(key.entry.id);
    await page.text();
  });
});
