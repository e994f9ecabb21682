import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readModelConfig } from '../../engine/model/config.ts';
import { LlamaModel } from '../../engine/model/llama.ts';

interface Golden {
  tokens: number[];
  promptLength: number;
  /** `dropped` is [layers][kvHeads] lists of positions, ascending. */
  merges: { at: number; first: number; last: number; freed: number; dropped: number[][][] }[];
  logits: { position: number; values: number[] }[];
}

const golden = JSON.parse(readFileSync(new URL('../../model/golden-merged.json', import.meta.url), 'utf8')) as Golden;
const folder = fileURLToPath(new URL('../../model/crystal-mini', import.meta.url));
const BLOCK = 16;

/** Feeds the golden tokens and merges on the way; tells what every merge dropped. */
function run(onMerge: (dropped: number[][][], merge: Golden['merges'][number]) => void): Map<number, Float32Array> {
  const config = readModelConfig(folder);
  const model = new LlamaModel(folder, config, BLOCK, 60, 512);
  const { tokens, merges, promptLength } = golden;
  const blocks = Array.from({ length: Math.ceil(tokens.length / BLOCK) }, (_, i) => 55 - i);
  const logits = new Map<number, Float32Array>();
  const held = (pool: number[]) =>
    Array.from({ length: config.layers }, (_, layer) =>
      Array.from({ length: config.kvHeads }, (_, head) =>
        pool.flatMap((block) => [...model.positions(layer, block, head)]),
      ),
    );
  for (let position = 0; position < tokens.length; ) {
    const merge = merges.find(({ at }) => at === position);
    if (merge !== undefined) {
      const indices = blocks.flatMap((block, i) => (i >= merge.first && i < merge.last && block !== 0 ? [i] : []));
      const sources = indices.map((i) => blocks[i]!);
      const before = held(sources);
      // any of the blocks may be the ones that are freed
      const from = indices.filter((_, i) => i % 2 === 0).slice(0, merge.freed);
      const into = indices.filter((i) => !from.includes(i));
      const at = (i: number) => blocks[i]!;
      const beside = blocks.filter((block, i) => i >= merge.last && i < position / BLOCK && block !== 0);
      model.merge({ into: into.map(at), from: from.map(at), beside });
      const after = held(into.map(at));
      const dropped = before.map((heads, layer) =>
        heads.map((positions, head) => {
          const kept = new Set(after[layer]![head]!);
          assert.equal(kept.size, into.length * BLOCK, 'every slot holds another token');
          assert.ok(
            [...kept].every((one) => positions.includes(one)),
            'only tokens that were there before',
          );
          return positions.filter((one) => !kept.has(one)).sort((a, b) => a - b);
        }),
      );
      onMerge(dropped, merge);
      for (const i of from) blocks[i] = 0;
    }
    const count = position < promptLength ? promptLength : 1;
    const chunk = { tokenIds: tokens.slice(position, position + count), position, blocks, logits: true, measure: true };
    const [result] = model.forward([chunk]);
    position += count;
    logits.set(position - 1, Float32Array.from(result!.logits!));
  }
  return logits;
}

test('a merge drops what the float64 reference drops, of every layer and KV head', () => {
  let compared = 0;
  run((dropped, merge) => {
    assert.deepEqual(dropped, merge.dropped, `the merge at ${merge.at}`);
    compared += 1;
  });
  assert.equal(compared, golden.merges.length);
});

test('the heads keep different tokens', () => {
  run((dropped) => assert.ok(new Set(dropped.flat().map(String)).size > 1));
});

test('logits after merges equal the float64 reference with the dropped keys masked', () => {
  const logits = run(() => {});
  for (const { position, values } of golden.logits) {
    const actual = logits.get(position)!;
    values.forEach((value, token) => {
      const difference = Math.abs(actual[token]! - value);
      assert.ok(difference < 1e-3, `position ${position}, token ${token}: ${difference}`);
    });
  }
  assert.ok(golden.logits.length >= 6);
  golden.tokens.slice(golden.promptLength).forEach((token, i) => {
    const row = logits.get(golden.promptLength - 1 + i)!;
    assert.equal(row.indexOf(Math.max(...row)), token, `token ${i}, with ${golden.merges.length} merges`);
  });
});

test('the masses after a merge are those of the tokens that each block holds now', () => {
  const config = readModelConfig(folder);
  const tokens = golden.tokens.slice(0, 20 * BLOCK + 5);
  const rows = (merged: boolean) => {
    const model = new LlamaModel(folder, config, BLOCK, 60, 512);
    const blocks = Array.from({ length: 21 }, (_, i) => i + 1);
    const forward = (position: number, count: number) =>
      model.forward([
        { tokenIds: tokens.slice(position, position + count), position, blocks, logits: false, measure: true },
      ])[0]!.masses!;
    forward(0, 20 * BLOCK);
    if (merged) {
      model.merge({ into: [12, 13], from: [14], beside: [15, 16, 17, 18, 19, 20] });
      blocks[13] = 0;
    }
    return { masses: forward(20 * BLOCK, 5), columns: merged ? 20 : 21 };
  };
  const mass = ({ masses, columns }: ReturnType<typeof rows>, group: number, from: number, to: number) =>
    masses.slice(group * columns + from, group * columns + to).reduce((sum, code) => sum + 2 ** (-(code + 0.5) / 2), 0);
  const [whole, merged] = [rows(false), rows(true)];
  assert.equal(merged.masses.length, config.layers * config.kvHeads * 20);
  for (let group = 0; group < config.layers * config.kvHeads; group++) {
    // what the merged blocks receive is at most what their tokens and the dropped ones did, up to a code's width
    const limit = 2 * mass(whole, group, 11, 14) + 0.05;
    assert.ok(mass(merged, group, 11, 13) <= limit, `head group ${group}`);
    assert.ok(Math.abs(mass(merged, group, 0, 20) - 1) < 0.2, `head group ${group} sums to 1`);
  }
});
