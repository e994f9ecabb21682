import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readModelConfig } from '../../engine/model/config.ts';
import { LlamaModel } from '../../engine/model/llama.ts';

interface Case {
  name: string;
  hiddenKeys: number[];
  fromQuery: number;
  continuation: number[];
  logits: { position: number; values: number[] }[];
}

const golden = JSON.parse(readFileSync(new URL('../../model/golden.json', import.meta.url), 'utf8')) as {
  prompt: number[];
  cases: Case[];
};
const folder = fileURLToPath(new URL('../../model/crystal-mini', import.meta.url));
const BLOCK = 16;

/** Feeds prompt and continuation, the prompt in chunks of `chunk`; hides blocks as the case says. */
function logitsOf(
  { hiddenKeys, fromQuery, continuation }: Case,
  blockSize: number,
  chunk: number,
): Map<number, Float32Array> {
  const model = new LlamaModel(folder, readModelConfig(folder), blockSize, 160, 128);
  const tokens = [...golden.prompt, ...continuation];
  const hidden = new Set(hiddenKeys.map((key) => Math.floor(key / blockSize)));
  const blocks = Array.from({ length: Math.ceil(tokens.length / blockSize) }, (_, i) => 150 - i);
  const logits = new Map<number, Float32Array>();
  for (let position = 0; position < tokens.length; ) {
    const count = position < golden.prompt.length ? Math.min(chunk, golden.prompt.length - position) : 1;
    if (position >= fromQuery) for (const block of hidden) blocks[block] = 0;
    const tokenIds = tokens.slice(position, position + count);
    const [result] = model.forward([{ tokenIds, position, blocks, logits: true, measure: false }]);
    position += count;
    logits.set(position - 1, Float32Array.from(result!.logits!));
  }
  return logits;
}

for (const expected of golden.cases) {
  for (const [blockSize, chunk] of [
    [16, 100],
    [16, 7],
    [8, 64],
  ] as const) {
    test(`logits equal the float64 reference: ${expected.name}, blocks of ${blockSize}, chunks of ${chunk}`, () => {
      const logits = logitsOf(expected, blockSize, chunk);
      let compared = 0;
      for (const { position, values } of expected.logits) {
        const actual = logits.get(position);
        if (actual === undefined) continue;
        compared += 1;
        values.forEach((value, token) => {
          const difference = Math.abs(actual[token]! - value);
          assert.ok(difference < 1e-3, `position ${position}, token ${token}: ${difference}`);
        });
      }
      assert.ok(compared >= expected.logits.length - 1, `${compared} positions were compared`);
      expected.continuation.forEach((token, i) => {
        const row = logits.get(golden.prompt.length - 1 + i)!;
        assert.equal(row.indexOf(Math.max(...row)), token, `token ${i} of the continuation`);
      });
    });
  }
}

test('the evicted case hides whole blocks, and the model misses them', () => {
  const [full, evicted] = golden.cases;
  assert.ok(full !== undefined && evicted !== undefined && evicted.hiddenKeys.length >= BLOCK);
  assert.notDeepEqual(evicted.continuation, full.continuation);
});
