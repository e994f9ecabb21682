import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { chat, setup } from './harness.ts';
import { json, type Script } from './upstream.ts';

const KNOWN = ['model', 'messages', 'stream', 'stream_options'];

/** A server that forbids members that it does not know. */
const strict: Script = ({ body, response }) => {
  const extra = Object.keys(JSON.parse(body.toString()) as object).find((key) => !KNOWN.includes(key));
  if (extra === undefined) response.end('{"id":"x"}');
  else response.writeHead(422).end(JSON.stringify({ error: { message: `Extra inputs are not permitted: ${extra}` } }));
};
const hasXargs = ({ body }: { body: Buffer }) => body.includes('vllm_xargs');
const BODY = { model: 'm', messages: [] };

describe('a server that refuses what the gateway adds', () => {
  it('is found out by its first answer, and gets requests without it', async (t) => {
    const { gateway, upstream } = await setup(t, strict);
    for (let i = 0; i < 3; i++) assert.equal((await chat(gateway, BODY)).status, 200);
    assert.deepEqual(upstream.received.map(hasXargs), [true, false, false, false]);
    assert.equal(upstream.received.at(-1)?.body.toString(), JSON.stringify(BODY));
  });

  it('gets long requests without it, to the byte', async (t) => {
    const { gateway, upstream } = await setup(t, strict);
    const long = { ...BODY, messages: [{ role: 'user', content: 'x'.repeat(300_000) }] };
    assert.equal((await chat(gateway, { ...long, crystal_kv: { mode: 'off' } })).status, 200);
    assert.equal(upstream.received.at(-1)?.body.toString(), JSON.stringify(long));
  });

  it('is believed when it refuses something else, to the byte', async (t) => {
    const { gateway, upstream } = await setup(t, json('{"error":"temperature"}', 400));
    const response = await chat(gateway, BODY);
    assert.deepEqual([response.status, await response.text()], [400, '{"error":"temperature"}']);
    assert.equal(upstream.received.length, 1);
  });

  it('is not asked once it has taken it', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    await chat(gateway, BODY);
    upstream.script = json('{"error":"vllm_xargs"}', 400);
    assert.equal((await chat(gateway, BODY)).status, 400);
    assert.equal(upstream.received.length, 2);
  });

  it('may be said to be one, or not to be', async (t) => {
    const { gateway, upstream } = await setup(t, json('{"error":"vllm_xargs"}', 400));
    for (const xargs of [true, false]) {
      const { gateway: other } = await setup(t, json('{}'), { backends: [{ url: upstream.url, xargs }] });
      await chat(other, BODY);
      assert.equal(hasXargs(upstream.received.at(-1) as { body: Buffer }), xargs);
    }
    assert.equal((await chat(gateway, BODY)).status, 400);
  });
});
