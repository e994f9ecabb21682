import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { listening, run } from './program.ts';
import { createUpstream, hangAfter, json } from './upstream.ts';

describe('the program', () => {
  it('serves, drains on SIGTERM and ends with 0', async (t) => {
    const upstream = await createUpstream(hangAfter(['data: 1\n\n']));
    t.after(() => upstream.close());
    const program = await run(t, { CRYSTALKV_GATEWAY_PORT: '0', CRYSTALKV_GATEWAY_BACKENDS: `[${upstream.url}]` });
    const url = await listening(program);
    const response = await fetch(`${url}/v1/completions`, { method: 'POST', body: '{"stream":true}' });
    assert.match(await (await fetch(`${url}/metrics`)).text(), /process_resident_memory_bytes\{service="gateway"\} \d/);
    program.child.signal('SIGTERM');
    await until(() => program.output().includes('"draining"'), 'it drains');
    upstream.received[0]!.response.end('data: [DONE]\n\n');
    assert.equal(await response.text(), 'data: 1\n\ndata: [DONE]\n\n');
    assert.equal(await program.ended(), 0);
  });

  it('says what is wrong with its configuration and ends with 2', async (t) => {
    const program = await run(t, { CRYSTALKV_GATEWAY_PORT: 'eighty' });
    assert.equal(await program.ended(), 2);
    assert.match(program.output(), /gateway\.port is "eighty": .*\(from CRYSTALKV_GATEWAY_PORT\)/);
  });

  it('says when its port is taken and ends with 1', async (t) => {
    const upstream = await createUpstream(json('{}'));
    t.after(() => upstream.close());
    const program = await run(t, { CRYSTALKV_GATEWAY_PORT: String(upstream.port) });
    assert.equal(await program.ended(), 1);
    assert.match(program.output(), /cannot listen on 127\.0\.0\.1:\d+: the port is in use/);
  });

  it('explains its options', async (t) => {
    const program = await run(t, {}, ['--help']);
    assert.equal(await program.ended(), 0);
    assert.match(
      program.output(),
      /backends {2}CRYSTALKV_GATEWAY_BACKENDS \[\[\{"url":"http:\/\/127\.0\.0\.1:8000"\}\]\]/,
    );
    assert.match(program.output(), /timeouts\.first_byte_ms\* {2}CRYSTALKV_GATEWAY_TIMEOUTS_FIRST_BYTE_MS \[600000\]/);
  });
});
