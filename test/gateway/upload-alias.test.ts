import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { fleet, modelsKnown, named } from './fleet-harness.ts';
import { type ErrorAnswer, metric, setup } from './harness.ts';
import { json, type RawClient, rawClient } from './upstream.ts';

const PATH = '/v1/audio/transcriptions';
const LONG = 'openai/whisper-large-v3-größer';
const CONFIG = { models: { aliases: { whisper: LONG, 'whisper-of-some-length': 'w' }, learn: false } };
const FILE = 300_000;

const field = (name: string, value: string) =>
  `--xY\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
const file = (bytes: number) =>
  Buffer.concat([
    Buffer.from('--xY\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'),
    // Bytes that a reader of text would not give back.
    Buffer.alloc(bytes, Buffer.from([0, 13, 10, 45, 45, 120, 0xff, 0xc3])),
    Buffer.from('\r\n'),
  ]);
const form = (...parts: (string | Buffer)[]) =>
  Buffer.concat([...parts, '--xY--\r\n'].map((part) => Buffer.from(part)));

function send(gateway: { url: string }, body: Buffer | ReadableStream): Promise<Response> {
  const headers = { 'content-type': 'multipart/form-data; boundary=xY' };
  return fetch(gateway.url + PATH, { method: 'POST', headers, body, duplex: 'half' } as RequestInit);
}

async function begin(port: number, framing: string): Promise<RawClient> {
  const client = await rawClient(port);
  client.write(
    `POST ${PATH} HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=xY\r\n${framing}\r\n\r\n`,
  );
  return client;
}

describe('an alias in a form', () => {
  for (const [alias, model] of Object.entries(CONFIG.models.aliases)) {
    it(`becomes the real name, and every other byte stays (${alias})`, async (t) => {
      const { gateway, upstream } = await setup(t, json('{"text":"x"}'), CONFIG);
      for (const parts of [
        [field('model', '#'), file(FILE)],
        [field('language', 'en'), field('model', '#'), field('prompt', alias), file(FILE)],
        [file(20_000), field('model', '#')],
      ]) {
        const made = (name: string) =>
          form(...parts.map((part) => (typeof part === 'string' ? part.replace('#', name) : part)));
        const response = await send(gateway, made(alias));
        assert.equal(await response.text(), '{"text":"x"}');
        const received = upstream.received.at(-1)!;
        assert.ok(received.body.equals(made(model)), `${received.body.length} of ${made(model).length} bytes`);
        assert.equal(received.headers['content-length'], String(made(model).length));
        assert.equal(received.headers['transfer-encoding'], undefined);
      }
    });
  }

  it('a length that was not announced is not announced to the backend either', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'), CONFIG);
    await (
      await send(gateway, new Blob([new Uint8Array(form(field('model', 'whisper'), file(FILE)))]).stream())
    ).text();
    const [{ body, headers }] = upstream.received as [(typeof upstream.received)[0]];
    assert.ok(body.equals(form(field('model', LONG), file(FILE))));
    assert.deepEqual([headers['content-length'], headers['transfer-encoding']], [undefined, 'chunked']);
  });

  it('is replaced wherever the pieces break, and sent on before the rest has come', async (t) => {
    const { gateway, upstream } = await setup(t, json('{"text":"x"}'), CONFIG);
    const whole = form(field('model', 'whisper'), file(100));
    const client = await begin(gateway.port, `Content-Length: ${whole.length}`);
    client.socket.setNoDelay(true);
    const head = field('model', 'whisper').length + 6;
    for (const byte of whole.subarray(0, head)) {
      client.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    const growth = Buffer.byteLength(LONG) - 'whisper'.length;
    await until(() => upstream.arriving[0]?.bytes === head + growth, 'the backend has the beginning');
    client.write(whole.subarray(head));
    await until(() => client.text().includes('{"text":"x"}'), 'the answer');
    assert.ok(upstream.received[0]!.body.equals(form(field('model', LONG), file(100))));
    client.socket.destroy();
  });

  it('goes to a backend that serves the model behind it', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('chat'), named('audio')], {
      models: { ...CONFIG.models, learn: true, interval_ms: 500 },
    });
    upstreams[0]!.models = ['llm'];
    upstreams[1]!.models = [LONG];
    await modelsKnown(gateway);
    for (let i = 0; i < 4; i++) {
      const response = await send(gateway, form(field('model', 'whisper'), file(10)));
      assert.deepEqual(await response.json(), { name: 'audio' });
    }
  });

  it('is sent again to another backend as long as nothing of it was sent', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], CONFIG);
    await upstreams[0]!.close();
    for (let i = 0; i < 2; i++) {
      const response = await send(gateway, form(field('model', 'whisper'), file(FILE)));
      assert.deepEqual(await response.json(), { name: 'b' });
      assert.ok(upstreams[1]!.received.at(-1)!.body.equals(form(field('model', LONG), file(FILE))));
    }
  });
});

describe('a form whose model cannot be replaced', () => {
  const refused = async (response: Response, message: RegExp) => {
    assert.equal(response.status, 400);
    const { error } = (await response.json()) as ErrorAnswer;
    assert.deepEqual([error.type, error.param], ['gateway_malformed_form', 'model']);
    assert.match(error.message, message);
  };

  it('is a 400 when the alias comes after more than 64 KiB; a real name passes there', async (t) => {
    const { gateway, upstream } = await setup(t, json('{"text":"x"}'), CONFIG);
    await refused(
      await send(gateway, form(file(FILE), field('model', 'whisper'))),
      /the model "whisper", an alias, after its first 65536 bytes: put the field model before the file/,
    );
    await until(() => upstream.arriving[0]!.aborted, 'the backend sees it break off');
    assert.equal(upstream.received.length, 0);
    const errors = `crystalkv_gateway_upstream_errors_total{backend="${upstream.url}",reason="protocol"}`;
    assert.equal(await metric(gateway, errors), 0);
    const plain = form(file(FILE), field('model', 'real'));
    assert.equal((await send(gateway, plain)).status, 200);
    assert.ok(upstream.received[0]!.body.equals(plain));
  });

  for (const [where, bytes] of [
    ['in the beginning', 10],
    ['far apart', FILE],
  ] as const) {
    it(`is a 400 when it names a model twice, ${where}`, async (t) => {
      const { gateway, upstream } = await setup(t, json('{}'), CONFIG);
      const twice = form(field('model', 'a'), file(bytes), field('model', 'a'));
      await refused(await send(gateway, twice), /more than one field model/);
      assert.equal(upstream.received.length, 0);
    });
  }

  it('is a 400 that says where it cannot be read, before the rest has come', async (t) => {
    const { gateway } = await setup(t, json('{}'), CONFIG);
    const client = await begin(gateway.port, `Content-Length: ${FILE}`);
    client.write('--xY\r\nContent-Disposition: attachment; name="model"\r\n\r\nwhisper\r\n');
    await until(() => client.text().includes('the headers of a part are ambiguous'), 'the answer');
    assert.match(client.text(), /^HTTP\/1\.1 400 /);
    client.socket.destroy();
  });

  it('passes as it is when it is no form that can be read', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'), CONFIG);
    const response = await fetch(gateway.url + PATH, {
      method: 'POST',
      body: form(field('model', 'whisper')),
      headers: { 'content-type': 'multipart/mixed; boundary=xY' },
    });
    assert.equal(response.status, 200);
    assert.ok(upstream.received[0]!.body.equals(form(field('model', 'whisper'))));
  });
});
