import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { JsonSyntaxError, MAX_DEPTH, MAX_MEMBERS, scanDocument } from '../../gateway/json/scan.ts';

const scan = (text: string) => scanDocument(Buffer.from(text));

function refusal(text: string): JsonSyntaxError {
  try {
    scan(text);
  } catch (error) {
    if (error instanceof JsonSyntaxError) return error;
    throw error;
  }
  return assert.fail(`accepted ${text}`);
}

describe('scanDocument', () => {
  it('lists the members of the top level with the bytes of their values', () => {
    const text = ' { "a" : 1 , "b":{"a":[{}, "}"]},"c" : "x\\"y" } ';
    const object = scan(text);
    const values = object.members.map(({ key, valueStart, end }) => [key, text.slice(valueStart, end)]);
    assert.deepEqual(values, [
      ['a', '1'],
      ['b', '{"a":[{}, "}"]}'],
      ['c', '"x\\"y"'],
    ]);
    assert.equal(text.slice(object.start, object.end), text.trim());
  });

  it('counts bytes, not characters', () => {
    const bytes = Buffer.from('{"é€😀":"é€😀","b":2}');
    const [first, second] = scanDocument(bytes).members;
    assert.equal(first?.key, 'é€😀');
    assert.equal(bytes.toString('utf8', second?.valueStart, second?.end), '2');
  });

  it('decodes escaped keys', () => {
    assert.deepEqual(
      scan('{"crystal\\u005fkv":1,"\\n":2}').members.map(({ key }) => key),
      ['crystal_kv', '\n'],
    );
  });

  it('keeps duplicate keys apart', () => {
    assert.equal(scan('{"a":1,"a":2}').members.length, 2);
  });

  it('ends strings at the right quote, whatever their length and their backslashes', () => {
    for (let length = 0; length < 600; length++) {
      for (const end of ['', '\\\\', '\\"', '\\\\\\"', '\\\\\\\\']) {
        const value = `"${'x'.repeat(length)}${end}"`;
        const [member, next] = scan(`{"k":${value},"n":"\\"" }`).members;
        assert.equal((member?.end ?? 0) - (member?.valueStart ?? 0), value.length, value);
        assert.equal(next?.key, 'n');
      }
    }
  });

  it('takes what Python takes beyond JSON: NaN, Infinity and a byte order mark', () => {
    assert.equal(scan('\ufeff{"a":NaN,"b":[-Infinity,Infinity]}').members.length, 2);
  });

  for (const [text, offset] of [
    ['', 0],
    ['  ', 2],
    ['[]', 0],
    ['{', 1],
    ['{"a"', 4],
    ['{"a":', 5],
    ['{"a":1', 6],
    ['{"a":1,}', 7],
    ['{"a":1 "b":2}', 7],
    ['{a:1}', 1],
    ['{"a":01}', 5],
    ['{"a":1.}', 5],
    ['{"a":+1}', 5],
    ['{"a":tru}', 5],
    ['{"a":"x}', 5],
    ['{"a":[1,]}', 8],
    ['{"a":[1}}', 7],
    ['{"a":{"b":1,}}', 12],
    ['{"a":{"b"}}', 9],
    ['{"a":1} x', 8],
    ['{"a":1}{', 7],
    ['{"\\x":1}', 1],
  ] as const) {
    it(`refuses ${JSON.stringify(text)} and says where`, () => {
      assert.equal(refusal(text).offset, offset);
    });
  }

  it('bounds depth and number of members', () => {
    const nested = (depth: number) => `{"a":${'['.repeat(depth)}${']'.repeat(depth)}}`;
    scan(nested(MAX_DEPTH));
    assert.match(refusal(nested(MAX_DEPTH + 1)).message, /deeper than 1000/);
    const wide = (count: number) => `{${Array.from({ length: count }, (_, i) => `"${i}":0`).join()}}`;
    scan(wide(MAX_MEMBERS));
    assert.match(refusal(wide(MAX_MEMBERS + 1)).message, /more than 10000 members/);
  });

  it('agrees with JSON.parse on what is an object, for damaged texts too', () => {
    const damaged = fc
      .tuple(fc.dictionary(fc.stringMatching(/^[a-z_\\"]{0,4}$/), fc.jsonValue({ maxDepth: 3 })), fc.nat(), fc.nat(2))
      .chain(([value, at, kind]) => {
        const text = JSON.stringify(value);
        const place = at % (text.length + 1);
        const insert = fc.constantFrom('{', '}', '[', ']', ',', ':', '"', '\\', '0', '-', '.', 'e', 't', ' ', '1');
        return insert.map((added) => {
          if (kind === 0) return text;
          return text.slice(0, place) + (kind === 1 ? added : '') + text.slice(place + (kind === 1 ? 0 : 1));
        });
      });
    fc.assert(
      fc.property(damaged, (text) => {
        const accepted = attempt(() => scan(text)) !== undefined;
        const parsed = attempt<unknown>(() => JSON.parse(text));
        const isObject = typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed);
        // The inside of strings is not looked at: a bad escape is the one thing that only JSON.parse refuses.
        if (accepted && !isObject) assert.ok(text.includes('\\'), text);
        if (isObject) assert.ok(accepted, text);
      }),
      { numRuns: 3000 },
    );
  });
});

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
