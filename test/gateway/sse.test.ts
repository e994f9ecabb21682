import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { GatewayError } from '../../gateway/errors.ts';
import { createLineGate, errorEvent } from '../../gateway/response/sse.ts';

function passed(chunks: Buffer[]): { pieces: Buffer[]; gate: ReturnType<typeof createLineGate> } {
  const gate = createLineGate();
  return { pieces: chunks.map((chunk) => gate.push(chunk)), gate };
}

describe('the line gate', () => {
  it('passes the same bytes whatever the chunks, and never half a line', () => {
    const text = fc.array(fc.constantFrom('data: {"a":"é😀"}', ': ping', '', '\n', '\r\n', '\n\n', 'x', '€'), {
      maxLength: 20,
    });
    fc.assert(
      fc.property(text, fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 60 }), (parts, sizes) => {
        const bytes = Buffer.from(parts.join(''));
        const chunks: Buffer[] = [];
        let at = 0;
        for (const size of sizes) {
          if (at < bytes.length) chunks.push(bytes.subarray(at, at + size));
          at += size;
        }
        if (at < bytes.length) chunks.push(bytes.subarray(at));
        const { pieces, gate } = passed(chunks);
        for (const piece of pieces) if (piece.length > 0) assert.match(piece.toString('latin1'), /[\r\n]$/);
        assert.deepEqual(Buffer.concat([...pieces, gate.rest()]), bytes);
      }),
    );
  });

  it('passes a chunk of whole lines as it is, without a copy', () => {
    const chunk = Buffer.from('data: 1\n\n');
    assert.equal(createLineGate().push(chunk), chunk);
  });

  it('does not hold a line beyond its limit, and then knows that nothing can follow', () => {
    const gate = createLineGate();
    const long = Buffer.alloc(300 * 1024, 'x');
    assert.equal(gate.push(long).length, long.length);
    assert.equal(gate.bridge(), undefined);
  });

  it('takes a carriage return alone for the end of a line', () => {
    assert.equal(createLineGate().push(Buffer.from('data: 1\r\rda')).toString(), 'data: 1\r\r');
  });

  for (const [sent, bridge] of [
    [[], ''],
    [['data: 1\n\n'], ''],
    [['data: 1\r\n\r\n'], ''],
    [['data: 1\n'], '\n'],
    [['data: 1\n\n', 'data: {"cho'], ''],
    [['data: 1\n', '\n'], ''],
  ] as const) {
    it(`ends the open event after ${JSON.stringify(sent)}`, () => {
      assert.equal(passed(sent.map((text) => Buffer.from(text))).gate.bridge(), bridge);
    });
  }

  it('knows when [DONE] was sent, in pieces too, and is not fooled by text', () => {
    const done = (...texts: string[]) => passed(texts.map((text) => Buffer.from(text))).gate.done();
    assert.equal(done('data: 1\n\ndata: [DONE]\n\n'), true);
    assert.equal(done('data: [DO', 'NE]\n', '\n'), true);
    assert.equal(done('data:[DONE]\r\n\r\n'), true);
    assert.equal(done('data: {"x":"data: [DONE]"}\n\n'), false);
    assert.equal(done('data: [DONE]'), false);
  });
});

describe('error events', () => {
  const error = new GatewayError('upstream_broken');
  it('are followed by [DONE] for completions, as vLLM does it', () => {
    const [event, done] = errorEvent('chat', error).split('\n\n');
    assert.deepEqual(JSON.parse(event?.slice('data: '.length) ?? ''), {
      error: { message: 'the backend broke off', type: 'gateway_upstream_broken', param: null, code: 502 },
    });
    assert.equal(done, 'data: [DONE]');
  });
  for (const form of ['responses', 'messages'] as const) {
    it(`have the name "error" and no [DONE] for ${form}`, () => {
      const text = errorEvent(form, error);
      assert.match(text, /^event: error\ndata: \{"type":"error",.*\}\n\n$/);
      assert.match(text, /gateway_upstream_broken/);
    });
  }
});
