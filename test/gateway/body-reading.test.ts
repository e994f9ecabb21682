import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { readBody } from '../../gateway/request/body.ts';
import { createBodyMemory } from '../../gateway/request/body-memory.ts';
import type { HeldBody } from '../../gateway/request/held-body.ts';

const MIB = 1024 * 1024;
const BODY = Buffer.alloc(24 * MIB, 'a body of many chunks, ');

/** The body as it was read; `see` gets the message before. */
async function reading(t: TestContext, see: (incoming: IncomingMessage) => void): Promise<HeldBody | undefined> {
  let done = (_: Promise<HeldBody | undefined>) => {};
  const body = new Promise<HeldBody | undefined>((resolve) => {
    done = resolve;
  });
  const server = createServer((incoming, response) => {
    see(incoming);
    const read = readBody(
      incoming,
      64 * MIB,
      createBodyMemory(() => 64 * MIB),
    );
    done(read);
    void read.then(() => response.end());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  request({ port, host: '127.0.0.1', method: 'POST', headers: { 'content-length': BODY.length } }, (answer) =>
    answer.resume(),
  ).end(BODY);
  return await body;
}

describe('a long body that is read', () => {
  it('leaves none of its chunks as garbage, and is what was sent', async (t) => {
    const chunks: Buffer[] = [];
    const body = await reading(t, (incoming) => void incoming.on('data', (chunk: Buffer) => void chunks.push(chunk)));
    assert.ok(body?.bytes?.equals(BODY));
    assert.ok(chunks.length > 100, `${chunks.length} chunks`);
    assert.equal(chunks.filter(({ length }) => length > 0).length, 0);
  });
});
