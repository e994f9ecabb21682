import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { GatewayError } from '../../gateway/errors.ts';
import { createCutter } from '../../gateway/response/cutter.ts';
import { errorEvent } from '../../gateway/response/error-event.ts';
import { createSentTail } from '../../gateway/response/sent-tail.ts';

const buffers = (texts: readonly string[]) => texts.map((text) => Buffer.from(text));

/** Bytes in chunks of the given sizes; what is left over is the last. */
function inChunks(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  let at = 0;
  for (const size of sizes) {
    if (at < bytes.length) chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  if (at < bytes.length) chunks.push(bytes.subarray(at));
  return chunks;
}

describe('the cutter of event streams', () => {
  for (const [unit, end] of [
    ['line', /[\r\n]$/],
    ['event', /(\n\n|\r\r|\n\r\n|(^|\n|\r):[^\n]*\n)$/],
  ] as const) {
    it(`passes the same bytes whatever the chunks, and never half a ${unit}`, () => {
      const text = fc.array(fc.constantFrom('data: {"a":"é😀"}', ': ping', '', '\n', '\r\n', '\n\n', 'x', '€'), {
        maxLength: 20,
      });
      fc.assert(
        fc.property(text, fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 60 }), (parts, sizes) => {
          const bytes = Buffer.from(parts.join(''));
          const cutter = createCutter(unit);
          const pieces = inChunks(bytes, sizes).map((chunk) => cutter.push(chunk));
          for (const piece of pieces) if (piece.length > 0) assert.match(piece.toString('latin1'), end);
          assert.deepEqual(Buffer.concat([...pieces, cutter.lines(), cutter.rest()]), bytes);
        }),
      );
    });

    it(`passes a chunk that ends a ${unit} as it is, without a copy`, () => {
      const chunk = Buffer.from('data: 1\n\n');
      assert.equal(createCutter(unit).push(chunk), chunk);
    });

    it(`holds no ${unit} beyond its limit`, () => {
      const cutter = createCutter(unit);
      const piece = Buffer.alloc(300 * 1024, 'x');
      let passed = 0;
      for (let pushed = 0; pushed <= 17 * 1024 * 1024; pushed += piece.length) passed += cutter.push(piece).length;
      assert.ok(passed > 16 * 1024 * 1024);
    });
  }

  it('lets comments before an event pass at once, and no line of an event', () => {
    const cutter = createCutter('event');
    const passed = [': processing\n', ': a\n: b', 'c\n', 'data: 1\n', ': in the event\n', '\n: d\nda', 'ta: 2\n\n'];
    assert.deepEqual(
      buffers(passed).map((chunk) => cutter.push(chunk).toString()),
      [': processing\n', ': a\n', ': bc\n', '', '', 'data: 1\n: in the event\n\n: d\n', 'data: 2\n\n'],
    );
  });

  it('takes a carriage return alone for the end of a line', () => {
    assert.equal(createCutter('line').push(Buffer.from('data: 1\r\rda')).toString(), 'data: 1\r\r');
  });

  it('gives the lines of an event that is still open', () => {
    const cutter = createCutter('event');
    assert.equal(cutter.push(Buffer.from('data: 1\n\nevent: a\ndata: {"b')).toString(), 'data: 1\n\n');
    assert.equal(cutter.lines().toString(), 'event: a\n');
    assert.equal(cutter.rest().toString(), 'data: {"b');
  });
});

describe('the end of what was sent', () => {
  const after = (texts: readonly string[]) => {
    const tail = createSentTail();
    for (const bytes of buffers(texts)) tail.note(bytes);
    return tail;
  };

  for (const [sent, bridge] of [
    [[], ''],
    [['data: 1\n\n'], ''],
    [['data: 1\r\n\r\n'], ''],
    [['data: 1\n'], '\n'],
    [['data: 1\n', '\n'], ''],
    [['data: 1\n\n', 'x'.repeat(300)], undefined],
  ] as const) {
    it(`ends the open event after ${JSON.stringify(sent).slice(0, 40)}`, () => {
      assert.equal(after(sent).bridge(), bridge);
    });
  }

  it('knows when [DONE] was sent, in pieces too, and is not fooled by text', () => {
    const done = (...texts: string[]) => after(texts).done();
    assert.equal(done('data: 1\n\ndata: [DONE]\n\n'), true);
    assert.equal(done('data: [DO', 'NE]\n', '\n'), true);
    assert.equal(done('data:[DONE]\r\n\r\n'), true);
    assert.equal(done('data: {"x":"data: [DONE]"}\n\n'), false);
  });
});

describe('error events', () => {
  const error = new GatewayError('upstream_broken');
  it('are followed by [DONE] for completions, as vLLM does it', () => {
    const [event, done] = errorEvent('chat', error).split('\n\n');
    assert.deepEqual(JSON.parse(event?.slice('data: '.length) ?? ''), {
      error: {
        message: 'the backend closed the connection before its response was complete',
        type: 'gateway_upstream_broken',
        param: null,
        code: 502,
      },
    });
    assert.equal(done, 'data: [DONE]');
  });
  for (const form of ['responses', 'messages'] as const) {
    it(`have the name "error" and no [DONE] for ${form}`, () => {
      const text = errorEvent(form, error);
      assert.match(text, /^event: error\ndata: \{"type":"error",.*\}\n\n$/);
      assert.match(text, form === 'messages' ? /"api_error"/ : /gateway_upstream_broken/);
    });
  }
});
