import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadSamplingDefaults } from '../../engine/http/generation-defaults.ts';
import { loadTokenizer } from '../../engine/http/tokenizer.ts';
import { FORMS } from '../../model/form.ts';
import { makeProgram } from '../../model/task.ts';
import { byteIds, ids, writeByteTokenizer, writeWordTokenizer } from './tokenizer-folders.ts';

const folder = writeWordTokenizer();

describe('the tokenizer', () => {
  const tokenizer = loadTokenizer(folder);

  it('encodes text and decodes it again', () => {
    const tokens = tokenizer.encode('L1 cat 1 2 : Q1 cat', true);
    assert.deepEqual(tokens, ids('L1 cat 1 2 : Q1 cat'));
    assert.equal(tokenizer.decode(tokens, true), 'L1 cat 1 2 : Q1 cat');
  });

  it('puts messages through the chat template, which opens the chain of thought', () => {
    const tokens = tokenizer.encodeChat([{ role: 'user', content: 'Q1 cat' }], { add_generation_prompt: true });
    assert.deepEqual(tokens, ids('<bos> <|user|> Q1 cat <|assistant|> <think>'));
    assert.equal(tokens.at(-1), tokenizer.thinkStartId);
  });

  it('names words outside the vocabulary, once each and at most three, and gives an example', () => {
    const text = 'please compute cat please add dog and subtract';
    assert.throws(() => tokenizer.encode(text, true), {
      name: 'UnknownWordsError',
      message: /^"please", "compute", "add" and 2 more are not in the vocabulary.*"L3 ant 2 5 : L2 bee ant 1/,
    });
  });

  it('leaves special tokens out when asked', () => {
    assert.equal(tokenizer.decode(ids('<bos> cat </think> dog <eos>'), true), 'cat </think> dog');
    assert.equal(tokenizer.decode(ids('<bos> cat <eos>'), false), '<bos> cat <eos>');
  });

  it('decodes step by step what it decodes at once', () => {
    const decoder = tokenizer.createDecoder(true);
    const pieces = ids('L1 cat =3 <eos> right').map((id) => decoder.push(id));
    assert.deepEqual(pieces, ['L1', ' cat', ' =3', '', ' right']);
  });

  it('joins onto the tokens before', () => {
    const decoder = tokenizer.createDecoder(true, ids('L1 cat'));
    assert.equal(decoder.push(ids('dog')[0]!), ' dog');
  });

  it('says which file is missing', () => {
    assert.throws(() => loadTokenizer('/nowhere'), /cannot read \/nowhere\/tokenizer_config.json/);
  });
});

describe('a tokenizer whose tokens are bytes', () => {
  const tokenizer = loadTokenizer(writeByteTokenizer());

  it('never lets half a character out', () => {
    const decoder = tokenizer.createDecoder(true);
    const pieces = byteIds('a\u00e9\u{1f600}b').map((id) => decoder.push(id));
    assert.deepEqual(pieces, ['a', '', '\u00e9', '', '', '', '\u{1f600}', 'b']);
  });

  it('lets out what is left of a character at the end', () => {
    const decoder = tokenizer.createDecoder(true);
    assert.equal(decoder.push(byteIds('\u00e9')[0]!), '');
    assert.equal(decoder.flush(), '\ufffd');
  });
});

const miniFolder = fileURLToPath(new URL('../../model/crystal-mini', import.meta.url));
const missing = existsSync(miniFolder) ? false : 'model/crystal-mini is not there: train it with `make model`';

describe('the tokenizer of crystal-mini', { skip: missing }, () => {
  it('knows its own example, and thinks first', () => {
    const tokenizer = loadTokenizer(miniFolder);
    const content = 'L3 ant 2 5 : L2 bee ant 1 : L1 cat bee bee : Q1 cat';
    const tokens = tokenizer.encodeChat([{ role: 'user', content }], { add_generation_prompt: true });
    assert.ok(tokenizer.decode(tokens, false).includes(content));
    assert.equal(tokens.at(-1), tokenizer.thinkStartId);
    assert.notEqual(tokenizer.thinkEndId, undefined);
  });

  it('reads programs of both forms as the generator writes them', () => {
    const tokenizer = loadTokenizer(miniFolder);
    for (const form of FORMS) {
      const { messages, ids, promptLength } = makeProgram(5, 6, { form });
      const tokens = tokenizer.encodeChat([...messages], { add_generation_prompt: true });
      assert.deepEqual(tokens, ids.slice(0, promptLength), form);
    }
  });

  it('takes the system message `verbose` in white space, and no other one', () => {
    const tokenizer = loadTokenizer(miniFolder);
    const user = { role: 'user', content: 'Q1 cat' };
    const prompt = (content: string) =>
      tokenizer.decode(
        tokenizer.encodeChat([{ role: 'system', content }, user], { add_generation_prompt: true }),
        false,
      );
    assert.equal(prompt(' verbose\n'), '<bos> <|system|> verbose <|user|> Q1 cat <|assistant|> <think>');
    assert.equal(prompt('You are a helpful assistant.'), '<bos> <|user|> Q1 cat <|assistant|> <think>');
  });

  it('is greedy by default', () => {
    assert.equal(loadSamplingDefaults(miniFolder).temperature, 0);
  });
});
