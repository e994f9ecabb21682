import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { GatewayError } from '../../gateway/errors.ts';
import { splice } from '../../gateway/json/splice.ts';
import { JsonBody } from '../../gateway/request/json-body.ts';
import { rewrite as rewriteBody } from '../../gateway/request/rewrite.ts';

const KEYS = { crystalkv_id: 'ckv-1', crystalkv_budget_tokens: 512 };
const FLAT = '"crystalkv_id":"ckv-1","crystalkv_budget_tokens":512';

function rewrite(text: string, keys: Record<string, string | number> = KEYS): string {
  const bytes = Buffer.from(text);
  return splice(bytes, rewriteBody(new JsonBody(bytes), keys).edits).toString();
}

describe('rewriting a request body', () => {
  for (const [name, before, after] of [
    ['adds the dictionary when there is none', '{ "model":"m" }', `{"vllm_xargs":{${FLAT}}, "model":"m" }`],
    ['adds it to an empty object', '{ }', `{"vllm_xargs":{${FLAT}} }`],
    ['adds keys in front of the client’s', '{"vllm_xargs": { "a":1 }}', `{"vllm_xargs": {${FLAT}, "a":1 }}`],
    ['fills an empty dictionary', '{"vllm_xargs":{ }}', `{"vllm_xargs":{${FLAT} }}`],
    ['makes a dictionary of null', '{"vllm_xargs": null }', `{"vllm_xargs": {${FLAT}} }`],
    ['takes the option out at the start', '{"crystal_kv":{},"a":1}', `{"vllm_xargs":{${FLAT}},"a":1}`],
    ['takes the option out at the end', '{"a":1 , "crystal_kv":{}}', `{"vllm_xargs":{${FLAT}},"a":1}`],
    ['takes the option out when it is alone', '{"crystal_kv":{"mode":"off"}}', `{"vllm_xargs":{${FLAT}}}`],
    ['takes every copy of it out', '{"crystal_kv":1,"a":1,"crystal\\u005fkv":2}', `{"vllm_xargs":{${FLAT}},"a":1}`],
    [
      'takes reserved keys out, escaped and repeated ones too',
      '{"vllm_xargs":{"crystalkv_id":"x","a":1,"crystalkv\\u005fid":"y","\\u0063rystalkv_zzz":2}}',
      `{"vllm_xargs":{${FLAT},"a":1}}`,
    ],
    [
      'adds to the last of two dictionaries and cleans both',
      '{"vllm_xargs":{"crystalkv_id":"x"},"b":2,"vllm_xargs":{"a":1,"crystalkv_mode":"off"}}',
      `{"vllm_xargs":{},"b":2,"vllm_xargs":{${FLAT},"a":1}}`,
    ],
    [
      'keeps the digits of numbers',
      '{"seed":9007199254740993,"vllm_xargs":{"n":1.10,"e":1E400}}',
      `{"seed":9007199254740993,"vllm_xargs":{${FLAT},"n":1.10,"e":1E400}}`,
    ],
    ['leaves a dictionary of another type for the backend to refuse', '{"vllm_xargs":[1]}', '{"vllm_xargs":[1]}'],
    [
      'looks at the top level only',
      '{"vllm_xargs":{},"a":{"crystal_kv":1,"vllm_xargs":{"crystalkv_id":1}}}',
      `{"vllm_xargs":{${FLAT}},"a":{"crystal_kv":1,"vllm_xargs":{"crystalkv_id":1}}}`,
    ],
  ] as const) {
    it(name, () => assert.equal(rewrite(before), after));
  }

  it('tells whether the keys were added', () => {
    const added = (text: string) => rewriteBody(new JsonBody(Buffer.from(text)), KEYS).added;
    assert.deepEqual(['{}', '{"vllm_xargs":null}', '{"vllm_xargs":{}}', '{"vllm_xargs":"x"}'].map(added), [
      true,
      true,
      true,
      false,
    ]);
  });

  it('gives the same bytes, and the same buffer, when nothing is to be changed', () => {
    const bytes = Buffer.from('{ "messages" : [ ],"vllm_xargs":{"a":1} }');
    assert.equal(splice(bytes, rewriteBody(new JsonBody(bytes), {}).edits), bytes);
  });

  it('reads model, stream and option; the last of duplicates counts', () => {
    const body = new JsonBody(
      Buffer.from('{"model":"a","stream":false,"model":"b","stream":true,"crystal_kv":{"mode":"off"}}'),
    );
    assert.deepEqual([body.model, body.stream, body.value('crystal_kv')], ['b', true, { mode: 'off' }]);
    const empty = new JsonBody(Buffer.from('{"crystal_kv":null,"model":7}'));
    assert.deepEqual([empty.model, empty.stream, empty.value('crystal_kv')], [undefined, false, null]);
  });

  it('names byte, line and column of what is not JSON', () => {
    assert.throws(
      () => new JsonBody(Buffer.from('{"a":1,\n "b":x}')),
      (error: unknown) =>
        error instanceof GatewayError &&
        error.code === 'malformed_json' &&
        error.message === "expected a value, found 'x' (byte 13, line 2, column 6)",
    );
  });
});

/** A JSON value with a text that writes it in some way that JSON allows. */
interface Written {
  text: string;
  value: unknown;
}

const space = fc.stringMatching(/^[ \n\r\t]{0,3}$/);
const quoted = (text: string) =>
  fc.nat(2 ** 30).map((choices) => {
    const characters = [...text].map((character, index) => {
      const escaped = character.length === 1 && ((choices >> (index % 30)) & 1) === 1;
      const code = character.charCodeAt(0).toString(16).padStart(4, '0');
      return escaped ? `\\u${code}` : JSON.stringify(character).slice(1, -1);
    });
    return { text: `"${characters.join('')}"`, value: text };
  });
const anyText = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 8 }),
  fc.string({ unit: fc.constantFrom('"', '\\', '{', '}', ',', ':', 'a', '\n'), maxLength: 70 }),
);
/**
 * No key begins with a backslash: V8 13.6 takes such a key, once it has seen one, for an escaped key in an object of the
 * same shape (`{"a":1,"\\\\":1}`, then `{"a":1,"\\u0062":1}`), and JSON.parse is the judge here.
 */
const keyText = anyText.filter((text) => !text.startsWith('\\'));
const number = fc
  .constantFrom('0', '-0', '1.10', '1E2', '-3.5e-7', '9007199254740993', '12345678901234567890', '1e400')
  .map((text): Written => ({ text, value: JSON.parse(text) }));
const literal = fc.constantFrom('true', 'false', 'null').map((text): Written => ({ text, value: JSON.parse(text) }));

const { json } = fc.letrec<{ json: Written }>((tie) => ({
  json: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    number,
    literal,
    anyText.chain(quoted),
    fc.array(fc.tuple(space, tie('json'), space), { maxLength: 4 }).map(
      (items): Written => ({
        text: `[${items.map(([a, { text }, b]) => a + text + b).join()}]`,
        value: items.map(([, { value }]) => value),
      }),
    ),
    members(keyText, tie('json')).map(({ text, value }) => ({ text, value })),
  ),
}));

interface WrittenObject extends Written {
  /** Bytes of each member, without the commas and spaces between. */
  parts: { key: string; text: string }[];
}

function members(keys: fc.Arbitrary<string>, values: fc.Arbitrary<Written>): fc.Arbitrary<WrittenObject> {
  const member = fc.tuple(keys.chain(quoted), values, space, space, space, space);
  return fc.array(member, { maxLength: 6 }).map((list) => ({
    text: `{${list.map(([key, value, a, b, c, d]) => `${a}${key.text}${b}:${c}${value.text}${d}`).join()}}`,
    value: objectOf(list.map(([key, value]) => [key.value, value.value])),
    parts: list.map(([key, value, , b, c]) => ({ key: key.value, text: `${key.text}${b}:${c}${value.text}` })),
  }));
}

/** As JSON.parse does it: the last of duplicates counts, `__proto__` is a key as any other. */
function objectOf(entries: [string, unknown][]): Record<string, unknown> {
  return Object.fromEntries(entries);
}

describe('rewriting any request body', () => {
  const xargs = fc.oneof(
    { weight: 3, arbitrary: members(fc.oneof(keyText, fc.constantFrom('crystalkv_id', 'crystalkv_', 'a')), json) },
    { weight: 1, arbitrary: literal.filter(({ text }) => text === 'null') },
    { weight: 1, arbitrary: number },
  );
  const field = fc.oneof(keyText, fc.constantFrom('model', 'stream', 'crystal_kv', 'prompt'));
  const body = fc.tuple(members(field, json), fc.option(xargs, { nil: undefined }), fc.nat(), space);

  it('parses to the expected object and keeps the bytes of every other member', () => {
    let withDictionary = 0;
    fc.assert(
      fc.property(body, ([object, dictionary, place, gap]) => {
        const parts = object.parts.filter(({ key }) => key !== 'vllm_xargs');
        if (dictionary !== undefined) {
          withDictionary++;
          parts.splice(place % (parts.length + 1), 0, { key: 'vllm_xargs', text: `"vllm_xargs":${dictionary.text}` });
        }
        const text = `${gap}{${gap}${parts.map((part) => part.text).join(`${gap},`)}${gap}}${gap}`;
        const result = rewrite(text);

        const expected = JSON.parse(text) as Record<string, unknown>;
        delete expected['crystal_kv'];
        const given = expected['vllm_xargs'] ?? {};
        if (typeof given === 'object') {
          const own = Object.entries(given).filter(([key]) => !key.startsWith('crystalkv_'));
          expected['vllm_xargs'] = objectOf([...own, ...Object.entries(KEYS)]);
        }
        assert.deepEqual(JSON.parse(result), expected);

        let from = 0;
        for (const part of parts) {
          if (part.key === 'crystal_kv' || part.key === 'vllm_xargs') continue;
          const found = result.indexOf(part.text, from);
          assert.ok(found >= 0, `lost ${part.text} of ${text}`);
          from = found + part.text.length;
        }
        if (dictionary !== undefined && 'parts' in dictionary) {
          const kept = dictionary.parts.filter(({ key }) => !key.startsWith('crystalkv_'));
          for (const part of kept) assert.ok(result.includes(part.text), `lost ${part.text} of ${text}`);
        }
      }),
      { numRuns: 2000 },
    );
    assert.ok(withDictionary > 100);
  });
});
