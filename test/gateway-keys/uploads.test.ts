import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ErrorAnswer } from '../gateway/harness.ts';
import { json, rawClient } from '../gateway/upstream.ts';
import { until } from '../support/until.ts';
import { bearer, newKey, setupKeyed } from './harness.ts';

const PATH = '/v1/audio/transcriptions';
const limited = newKey('limited', { models: ['small', 'nick'] });
const ALIASES = { models: { aliases: { nick: 'large' }, learn: false } };

const field = (name: string, value: string) =>
  `--xY\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
const form = (...parts: string[]) => `${parts.join('')}--xY--\r\n`;

describe('uploads with a key that has a list of models', () => {
  const send = (gateway: { url: string }, body: string, type = 'multipart/form-data; boundary=xY') =>
    fetch(gateway.url + PATH, {
      method: 'POST',
      headers: { ...bearer(limited).headers, 'content-type': type },
      body,
    });

  it('pass for a model of the list, also by an alias', async (t) => {
    const { gateway, upstream } = await setupKeyed(t, json('{}'), [limited], ALIASES);
    assert.equal((await send(gateway, form(field('model', 'small'), field('file', 'x')))).status, 200);
    assert.equal((await send(gateway, form(field('model', 'nick')))).status, 200);
    assert.equal(upstream.received[1]!.body.toString(), form(field('model', 'large')));
  });

  it('are refused for another, for none, and where the model cannot be known, and reach no backend', async (t) => {
    const { gateway, upstream } = await setupKeyed(t, json('{}'), [limited], ALIASES);
    const mixed = 'multipart/mixed; boundary=xY';
    for (const [body, message, type] of [
      [form(field('model', 'large')), /may not use the model "large"; it may use small, nick/],
      [form(field('file', 'x')), /must name its model, in a JSON body or, in a form, before the file/],
      [form(field('file', 'x'.repeat(300_000)), field('model', 'small')), /must name its model/],
      [form(field('model', 'small')), /must name its model/, mixed],
    ] as const) {
      const response = await send(gateway, body, type);
      assert.equal(response.status, 403);
      assert.match(((await response.json()) as ErrorAnswer).error.message, message);
    }
    assert.equal(upstream.arriving.length, 0);
  });

  it('cannot name a second model behind the file', async (t) => {
    const { gateway, upstream } = await setupKeyed(t, json('{}'), [limited]);
    const body = form(field('model', 'small'), field('file', 'x'.repeat(200_000)), field('model', 'large'));
    const response = await send(gateway, body);
    assert.equal(response.status, 400);
    assert.match(((await response.json()) as ErrorAnswer).error.message, /more than one field model/);
    assert.equal(upstream.received.length, 0);
  });

  it('that are refused before they have come leave a connection that takes the next request', async (t) => {
    const { gateway } = await setupKeyed(t, json('{"next":1}'), [limited]);
    const client = await rawClient(gateway.port);
    const auth = `Host: h\r\nAuthorization: Bearer ${limited.secret}\r\n`;
    const body = form(field('model', 'large'), field('file', 'x'.repeat(1_000_000)));
    client.write(
      `POST ${PATH} HTTP/1.1\r\n${auth}Content-Type: multipart/form-data; boundary=xY\r\nContent-Length: ${body.length}\r\n\r\n`,
    );
    client.write(body.slice(0, 1000));
    await until(() => client.text().startsWith('HTTP/1.1 403 '), 'it is refused');
    client.write(body.slice(1000));
    client.write(`GET /version HTTP/1.1\r\n${auth}\r\n`);
    await until(() => client.text().includes('{"next":1}'), 'the next request is answered');
    client.socket.destroy();
  });
});
