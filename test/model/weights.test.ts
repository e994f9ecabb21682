import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { POSITIONS } from '../../model/form.ts';
import { makeProgram } from '../../model/task.ts';
import { VOCABULARY } from '../../model/vocab.ts';

const read = (path: string) => JSON.parse(readFileSync(new URL(`../../model/${path}`, import.meta.url), 'utf8'));

describe('the files of crystal-mini', () => {
  it('hold the vocabulary of the generator', () => {
    const ids = read('crystal-mini/tokenizer.json').model.vocab;
    assert.deepEqual(ids, Object.fromEntries(VOCABULARY.map((word, id) => [word, id])));
    const { vocab_size, max_position_embeddings } = read('crystal-mini/config.json');
    assert.deepEqual([vocab_size, max_position_embeddings], [VOCABULARY.length, POSITIONS]);
  });

  it('hold a golden output for a program of the generator, answered right with all keys', () => {
    const { prompt, cases } = read('golden.json');
    const program = makeProgram(2_000_000, 24);
    assert.deepEqual(prompt, program.ids.slice(0, program.promptLength));
    assert.deepEqual(cases[0].continuation, program.ids.slice(program.promptLength));
  });
});
