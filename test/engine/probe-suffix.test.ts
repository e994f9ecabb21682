import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadTokenizer } from '../../engine/http/tokenizer.ts';
import { encodeBeforeText } from '../../engine/probe-suffix.ts';

/** As byte-level tokenizers cut line ends: the last one before a word is a token of its own. */
const cut = (text: string) => (text.match(/\n+(?=\n\w)|\n(?=\w)|\n+|\w+|[^\w\n]+/g) ?? []).map((piece) => piece.length);

test('line ends are cut as they are before the words of an answer', () => {
  assert.deepEqual(cut('x\n\n'), [1, 2]);
  assert.deepEqual(cut('x\n\nA'), [1, 1, 1, 1]);
  assert.deepEqual(encodeBeforeText('x\n\n', cut), [1, 1, 1]);
});

test('a tokenizer without letters encodes the text as it is, and names words that it does not know', () => {
  const tokenizer = loadTokenizer(fileURLToPath(new URL('../../model/crystal-mini', import.meta.url)));
  const encode = (text: string) => tokenizer.encode(text, false);
  assert.deepEqual(encodeBeforeText('</think>', encode), encode('</think>'));
  assert.throws(
    () => encodeBeforeText('That was everyone.', encode),
    /"That", "was", "everyone." are not in the vocabulary/,
  );
});
