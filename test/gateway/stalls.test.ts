import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { atOnce, documentSteps, type Steps } from '../../gateway/json/scan.ts';
import { inTurns } from '../../gateway/json/turns.ts';
import { chat, post, setup } from './harness.ts';
import { json } from './upstream.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
/** No piece of a body that is made a string or a value is longer, whatever the body. */
const MOST_BYTES = 64 * KIB;

const fill = (unit: string, bytes: number) => unit.repeat(Math.floor(bytes / unit.length));
const list = (unit: string, bytes: number) => `[${fill(`${unit},`, bytes)}0]`;
const keys = (bytes: number) =>
  `{${Array.from({ length: Math.min(9_000, bytes / 16) }, (_, i) => `"k${String(i).padStart(8, '0')}":"${'y'.repeat(bytes / 9_000)}"`).join(',')}}`;

/** Bodies of about so many bytes. */
const SHAPES: Readonly<Record<string, (bytes: number) => string>> = {
  'a model of lists': (n) => `{"model":${list('[]', n)}}`,
  'a model of objects': (n) => `{"model":${list('{}', n)}}`,
  'a long model': (n) => `{"model":"${fill('x', n)}"}`,
  'a stream of lists': (n) => `{"model":"m","stream":${list('[]', n)}}`,
  'an option of lists': (n) => `{"model":"m","crystal_kv":${list('[]', n)}}`,
  'an option of many keys': (n) => `{"model":"m","crystal_kv":${keys(n)}}`,
  'an option with a long profile': (n) => `{"model":"m","crystal_kv":{"profile":"${fill('x', n)}"}}`,
  'a limit of digits': (n) => `{"model":"m","max_tokens":${fill('1', n)}}`,
  'a number with many places': (n) => `{"model":"m","a":1.${fill('1', n)}}`,
  'options of the stream with many keys': (n) => `{"model":"m","stream":true,"stream_options":${keys(n)}}`,
  'a dictionary with many keys': (n) => `{"model":"m","vllm_xargs":${keys(n)}}`,
  'a dictionary that is a string': (n) => `{"model":"m","vllm_xargs":"${fill('x', n)}"}`,
  'a previous response of lists': (n) => `{"model":"m","previous_response_id":${list('[]', n)}}`,
  'a long previous response': (n) => `{"model":"m","previous_response_id":"${fill('x', n)}"}`,
  'a long key': (n) => `{"model":"m","${fill('\\u0061', n)}":1}`,
  'line breaks before an error': (n) => `{"model":"m","a":[${fill('\n', n)}x]}`,
  'escaped quotes': (n) => `{"model":"m","a":"${fill('\\"', n)}"}`,
  backslashes: (n) => `{"model":"m","a":"${fill('\\\\', n)}"}`,
  'a list of numbers': (n) => `{"model":"m","prompt":${list('1', n)}}`,
  'an image': (n) => `{"model":"m","a":"${fill('A', n)}"}`,
  'members in thousands': keys,
};

function countSteps(steps: Steps<unknown>): number {
  for (let count = 1; ; count++) {
    try {
      if (steps.next().done === true) return count;
    } catch {
      return count;
    }
  }
}

/** The longest piece of a body of which a string or a value was made meanwhile. */
async function longestMade(work: () => Promise<unknown>): Promise<number> {
  let longest = 0;
  const { parse } = JSON;
  const { toString: asString } = Buffer.prototype;
  JSON.parse = (text: string, ...more: []) => {
    longest = Math.max(longest, text.length);
    return parse(text, ...more);
  };
  Buffer.prototype.toString = function measured(this: Buffer, encoding?: BufferEncoding, start = 0, end?: number) {
    longest = Math.max(longest, Math.min(end ?? this.length, this.length) - start);
    return asString.call(this, encoding, start, end);
  };
  try {
    await work();
  } finally {
    JSON.parse = parse;
    Buffer.prototype.toString = asString;
  }
  return longest;
}

describe('no body holds up the others', () => {
  for (const [name, shape] of Object.entries(SHAPES)) {
    it(`reads ${name} in steps, whose number grows with the bytes`, () => {
      const [small, large] = [2 * MIB, 8 * MIB].map((bytes) => countSteps(documentSteps(Buffer.from(shape(bytes)))));
      assert.ok(large !== undefined && small !== undefined && large <= 4 * small + 4, `${small} steps, then ${large}`);
    });

    it(`makes no value of ${name}`, async (t) => {
      const { gateway } = await setup(t, json('{"id":"x"}'), { usage: { metering: 'full' } });
      const path = name.includes('previous') ? '/v1/responses' : '/v1/chat/completions';
      const body = shape(4 * MIB);
      const longest = await longestMade(async () => void (await post(gateway, path, body)).body?.cancel());
      assert.ok(longest <= MOST_BYTES, `${longest} bytes at once`);
    });
  }

  it('reads the same in steps as at once', async () => {
    for (const shape of Object.values(SHAPES)) {
      const bytes = Buffer.from(shape(300 * KIB));
      const [once, turns] = await Promise.allSettled([
        (async () => atOnce(documentSteps(bytes)))(),
        inTurns(documentSteps(bytes)),
      ]);
      assert.deepEqual(turns, once);
    }
  });

  it('lets everything else have its turn between two steps', async () => {
    let turns = 0;
    let running = true;
    const tick = () => {
      turns++;
      if (running) setImmediate(tick);
    };
    setImmediate(tick);
    const bytes = Buffer.from(SHAPES['a model of lists']?.(4 * MIB) ?? '');
    await Promise.all([inTurns(documentSteps(bytes)), inTurns(documentSteps(bytes))]);
    running = false;
    assert.ok(turns >= 2 * countSteps(documentSteps(bytes)) - 2, `${turns} turns`);
  });

  it('names the first bytes of a long option that it refuses', async (t) => {
    const { gateway } = await setup(t, json('{}'));
    const answer = await chat(gateway, `{"model":"m","crystal_kv":${keys(MIB)}}`);
    const text = await answer.text();
    assert.equal(answer.status, 400);
    assert.ok(text.length < 4 * KIB, `${text.length} bytes`);
  });
});
