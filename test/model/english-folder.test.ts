import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadTokenizer } from '../../engine/http/tokenizer.ts';
import { readModelConfig } from '../../engine/model/config.ts';
import { englishFolder } from '../../model/english/folder.ts';
import { makeStory, THINK_END } from '../../model/english/story.ts';
import { NEEDS_FOLDER, READY } from './english.ts';

const ADAPTER = fileURLToPath(new URL('../../model/english/adapter.safetensors', import.meta.url));

interface Entry {
  dtype: string;
  shape: [number, number];
}

function adapterHeader(): Record<string, Entry> {
  const file = readFileSync(ADAPTER);
  const { __metadata__: _, ...tensors } = JSON.parse(file.toString('utf8', 8, 8 + Number(file.readBigUInt64LE(0))));
  return tensors;
}

describe('the adapter of the English model', () => {
  it('has rank 16, an A and a B for seven matrices in each of 30 layers, and at most 12 MB', () => {
    const tensors = adapterHeader();
    const names = Object.keys(tensors).flatMap((name) => (name.startsWith('A.') ? [name.slice(2)] : []));
    assert.equal(names.length, 7 * 30);
    assert.equal(Object.keys(tensors).length, 2 * names.length);
    for (const name of names) {
      assert.deepEqual([tensors[`A.${name}`]!.dtype, tensors[`B.${name}`]!.dtype], ['BF16', 'BF16']);
      assert.deepEqual([tensors[`A.${name}`]!.shape[0], tensors[`B.${name}`]!.shape[1]], [16, 16]);
    }
    assert.ok(statSync(ADAPTER).size <= 12e6);
  });
});

describe('the folder of the English model', NEEDS_FOLDER, () => {
  const folder = READY ? englishFolder() : '';

  it('is one that the embedded engine reads', () => {
    const config = readModelConfig(folder);
    assert.deepEqual([config.layers, config.kvHeads, config.headDim, config.vocab], [30, 3, 64, 49_152]);
    assert.equal(loadTokenizer(folder).vocabSize, config.vocab);
  });

  it('has one token for the end of thinking, and one for the end of a line', () => {
    const tokenizer = loadTokenizer(folder);
    for (const text of ['<think>', '</think>', '\n']) assert.equal(tokenizer.encode(text, false).length, 1);
    assert.deepEqual(tokenizer.encode('</think>', false), [tokenizer.thinkEndId]);
    const { reasoning, answer } = makeStory(1, 16);
    const ids = tokenizer.encode(reasoning + THINK_END + answer, false);
    assert.equal(ids.filter((id) => id === tokenizer.thinkEndId).length, 1);
    const lineEnds = (reasoning + THINK_END).split('\n').length - 1;
    assert.equal(ids.filter((id) => id === tokenizer.encode('\n', false)[0]).length, lineEnds);
    assert.equal(tokenizer.decode(ids, true), reasoning + THINK_END + answer);
  });

  it('opens the thinking in its chat template, and adds no system message', () => {
    const tokenizer = loadTokenizer(folder);
    const ids = tokenizer.encodeChat([{ role: 'user', content: 'Anna has 5 coins.' }], { add_generation_prompt: true });
    const text = '<|im_start|>user\nAnna has 5 coins.<|im_end|>\n<|im_start|>assistant\n<think>\n';
    assert.equal(tokenizer.decode(ids, false), text);
  });
});
