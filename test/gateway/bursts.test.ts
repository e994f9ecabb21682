import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { createRecord } from '../../gateway/observe/record.ts';
import { createShaper, type Shaper } from '../../gateway/response/shaper.ts';
import { Meter } from '../../gateway/usage/meter.ts';
import { until } from '../support/until.ts';
import { setup } from './harness.ts';
import { hangAfter, stream } from './upstream.ts';

const event = (text: string, usage: string, choice = 0) =>
  `data: {"id":"c","choices":[{"index":${choice},"delta":{"content":${JSON.stringify(text)}}}]${usage}}\n\n`;
const soFar = (tokens: number) =>
  `,"usage":{"prompt_tokens":11,"total_tokens":${11 + tokens},"completion_tokens":${tokens}}`;
const DONE = 'data: [DONE]\n\n';

describe('a burst of events', () => {
  it('is one chunk, and chunks are well formed on a connection with several streams', async (t) => {
    const events = Array.from({ length: 50 }, (_, index) => event(`${index}`, ''));
    const { gateway } = await setup(t, stream([events.join(''), DONE]));
    const socket = connect(gateway.port, '127.0.0.1');
    t.after(() => socket.destroy());
    let text = '';
    socket.setEncoding('latin1').on('data', (piece: string) => {
      text += piece;
    });
    const body = JSON.stringify({ stream: true });
    const request = `POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
    socket.write(request.repeat(3));
    await until(() => text.split('\r\n0\r\n\r\n').length === 4, 'three responses came');
    for (const response of text.split('\r\n0\r\n\r\n').slice(0, 3)) {
      const [head = '', ...rest] = response.split('\r\n\r\n');
      assert.match(head, /^HTTP\/1\.1 200/);
      const { chunks, sizes } = chunksOf(rest.join('\r\n\r\n'));
      assert.equal(chunks.join(''), events.join('') + DONE);
      assert.ok(sizes.length <= 4, `${sizes}`);
    }
  });

  it('is passed on to a client that reads slowly, all of it', async (t) => {
    const big = event('x'.repeat(30_000), '');
    const { gateway, upstream } = await setup(t, hangAfter([]));
    const response = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: '{"stream":true}' });
    const backend = upstream.received[0]!.response;
    for (let i = 0; i < 200; i++) backend.write(big);
    backend.end(DONE);
    assert.equal((await response.text()).length, 200 * big.length + DONE.length);
  });
});

describe('usage so far in every event', () => {
  const shape = (pieces: readonly string[], shows: 'never' | 'always' = 'never') => {
    const request = { headers: {}, method: 'POST' } as unknown as Parameters<typeof createRecord>[0];
    const record = createRecord(request, undefined);
    const meter = new Meter(record, { prompt: 99, generates: true, batch: false });
    const shaper: Shaper = createShaper({ form: 'chat', meter, shows, alias: false, report: undefined });
    shaper.start(200, { headers: [], eventStream: true, framed: true } as unknown as Parameters<Shaper['start']>[1]);
    const text = pieces.map((piece) => shaper.push(Buffer.from(piece)).toString()).join('');
    meter.close(false);
    return { text, tokens: record.tokens };
  };

  it('is taken out of a burst as it is out of single events, and the last of each choice counts', () => {
    const pieces = [1, 2, 3].flatMap((n) => [event(`a"usage":{${n}`, soFar(n)), event('}}\n\n', soFar(10 * n), 1)]);
    const bare = [1, 2, 3].flatMap((n) => [event(`a"usage":{${n}`, ''), event('}}\n\n', '', 1)]).join('');
    assert.equal(shape(pieces).text, bare);
    assert.deepEqual(shape([pieces.join('')]), shape(pieces));
    assert.deepEqual(shape(pieces).tokens, { input: 11, output: 33 });
    assert.equal(shape([pieces.join('')], 'always').text, pieces.join(''));
  });

  it('of other forms is found too, and nothing else is taken for it', () => {
    const nested = ',"usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":3}}';
    assert.deepEqual(shape([event('a', soFar(5)), event('b', nested)]), {
      ...{ text: event('a', '') + event('b', ''), tokens: { input: 11, output: 7 } },
    });
    const words = event('a', ',"usage":{"prompt_tokens":"11","completion_tokens":7}');
    assert.equal(shape([words]).text, event('a', ''));
    const other = event('a', ',"usages":{"prompt_tokens":11,"completion_tokens":7}');
    assert.equal(shape([other]).text, other);
    const crlf = event('a', soFar(5)).replace('\n\n', '\r\n\r\n');
    assert.deepEqual(shape([crlf]), {
      ...{ text: event('a', '').replace('\n\n', '\r\n\r\n') },
      tokens: { input: 11, output: 5 },
    });
  });

  it('ends with the usage of all, which is taken out with its event', () => {
    const last = `data: {"id":"c","choices":[]${soFar(9)}}\n\n`;
    const { text, tokens } = shape([event('a', soFar(8)) + event('b', soFar(9)) + last + DONE]);
    assert.equal(text, event('a', '') + event('b', '') + DONE);
    assert.deepEqual(tokens, { input: 11, output: 9 });
  });
});

/** Of a body in chunks without its end. Throws where the lengths are not those of the chunks. */
function chunksOf(body: string): { chunks: string[]; sizes: number[] } {
  const chunks: string[] = [];
  const sizes: number[] = [];
  for (let rest = `${body}\r\n`; rest !== ''; ) {
    const [line = ''] = rest.split('\r\n', 1);
    const size = Number.parseInt(line, 16);
    const start = line.length + 2;
    assert.equal(rest.slice(start + size, start + size + 2), '\r\n');
    sizes.push(size);
    chunks.push(rest.slice(start, start + size));
    rest = rest.slice(start + size + 2);
  }
  return { chunks, sizes };
}
