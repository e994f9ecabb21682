import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundaryOf } from '../../gateway/request/form-headers.ts';
import {
  FieldFinder,
  type FormField,
  FormSyntaxError,
  MAX_HEAD_BYTES,
  MAX_VALUE_BYTES,
} from '../../gateway/request/form-scan.ts';

const part = (head: string, value: string) => `--xY\r\n${head}\r\n\r\n${value}\r\n`;
const field = (name: string, value: string) => part(`Content-Disposition: form-data; name="${name}"`, value);
const END = '--xY--\r\n';

function find(text: string | Buffer, size = Number.POSITIVE_INFINITY): FormField[] {
  const bytes = Buffer.from(text);
  const finder = new FieldFinder('xY', 'model');
  const found: FormField[] = [];
  for (let at = 0; at < bytes.length; at += size) found.push(...finder.push(bytes.subarray(at, at + size)));
  for (const { start, end, value } of found) assert.equal(bytes.toString('utf8', start, end), value);
  return found;
}

const values = (text: string) => find(text).map(({ value }) => value);

describe('a field of a form', () => {
  it('is found wherever the pieces break, between parts that look like it', () => {
    const text =
      part(
        'Content-Disposition: form-data; name="file"; filename="model"\r\nContent-Type: audio/wav',
        '\r\n--x\r\n--xZ--',
      ) +
      field('prompt', 'name="model"\r\n\r\nwrong') +
      field('model', 'Größe/1') +
      field('Model', 'other') +
      END +
      field('model', 'after the end');
    const whole = find(text);
    assert.deepEqual(
      whole.map(({ value }) => value),
      ['Größe/1'],
    );
    for (const size of [1, 2, 3, 7, 64]) assert.deepEqual(find(text, size), whole, `in pieces of ${size}`);
  });

  it('is found each time, empty, first, or behind line breaks', () => {
    assert.deepEqual(values(`${field('model', 'a')}${field('model', '')}${END}`), ['a', '']);
    assert.deepEqual(values(`\r\n\r\n${field('model', 'a')}`), []);
    assert.deepEqual(values(`\r\n\r\n${field('model', 'a')}${END}`), ['a']);
    assert.deepEqual(values(END), []);
  });

  for (const head of [
    'content-disposition:form-data;name=model',
    'Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: FORM-DATA ; Name="model" ;',
    'Content-Disposition: form-data; filename="a\\";name=\\"b"; name="model"',
    'Content-Disposition: form-data; filename="C:\\dir"; name="model"; filename*=utf-8\'\'x',
    'Content-Disposition: form-data; name="mo\\del"',
  ]) {
    it(`is one with the head ${JSON.stringify(head)}`, () => {
      assert.deepEqual(values(part(head, 'a') + END), ['a']);
    });
  }

  for (const head of [
    '',
    'Content-Type: text/plain',
    'Content-Disposition: form-data',
    'Content-Disposition: attachment; name="model"',
    'Content-Disposition: form-data; name="x"; name="model"',
    'Content-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"',
    'Content-Disposition: form-data; name="x"; name*=utf-8\'\'model',
    'Content-Disposition: form-data; name*0="mo"; name*1="del"',
    'Content-Disposition: form-data; name=<model>',
    'Content-Disposition: form-data; name="model',
    'Content-Disposition: form-data; filename="a\\\\"; name="model"',
    'Content-Disposition: form-data;\r\n name="model"',
    'Content-Disposition: form-data; name="x"\nContent-Disposition: form-data; name="model"',
    'Content-Disposition : form-data; name="model"',
  ]) {
    it(`is not looked for any more behind the head ${JSON.stringify(head)}`, () => {
      assert.throws(() => values(part(head, 'a') + END), FormSyntaxError);
    });
  }

  for (const [text, message] of [
    [`preamble\r\n${field('model', 'a')}`, /does not start with its boundary \(at byte 0\)/],
    [`\n${field('model', 'a')}`, /does not start with its boundary/],
    [field('x', 'a').replace('--xY', '--xY  '), /there is text after a boundary/],
    [`${field('x', 'a')}--xYz\r\n${field('model', 'a')}`, /there is text after a boundary/],
    [`--xY\r\nA: ${'x'.repeat(MAX_HEAD_BYTES)}`, /the headers of a part have more than 8192 bytes/],
    [field('model', 'x'.repeat(MAX_VALUE_BYTES + 1)) + END, /the field model exceeds 1024 bytes/],
    [field('model', 'x'.repeat(2 * MAX_VALUE_BYTES)).slice(0, -2), /the field model exceeds 1024 bytes/],
  ] as const) {
    it(`is not looked for in ${JSON.stringify(text.slice(0, 60))}`, () => {
      assert.throws(
        () => find(text, 1),
        (error: unknown) => error instanceof FormSyntaxError && message.test(error.message),
      );
    });
  }
});

describe('the boundary of a form', () => {
  for (const [type, boundary] of [
    ['multipart/form-data; boundary=xY', 'xY'],
    ['Multipart/Form-Data;boundary="a b:c";', 'a b:c'],
    ['multipart/form-data; charset=UTF-8; boundary=x', 'x'],
    ['multipart/form-data; charset=utf-16; boundary=x', undefined],
    ['multipart/form-data; boundary=x; boundary=y', undefined],
    ["multipart/form-data; boundary=x; boundary*=utf-8''y", undefined],
    [`multipart/form-data; boundary=${'x'.repeat(71)}`, undefined],
    ['multipart/form-data', undefined],
    ['multipart/mixed; boundary=x', undefined],
    ['application/json', undefined],
    [undefined, undefined],
  ] as const) {
    it(`of ${type} is ${boundary}`, () => assert.equal(boundaryOf(type), boundary));
  }
});
