import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import { loadTokenizer } from '../../engine/http/tokenizer.ts';
import { Arena, loadKernels } from '../../engine/kernels/kernels.ts';
import { readModelConfig } from '../../engine/model/config.ts';
import { LlamaModel } from '../../engine/model/llama.ts';
import { MATRICES, paddedRows, type WeightFormat } from '../../engine/model/matrix.ts';
import { checkMemory } from '../../engine/model/memory.ts';
import { referenceLogits } from './reference-llama.ts';
import { randomWeights, safetensors, TINY, type TinyWeights, writeTinyLlama } from './tiny-llama.ts';

const BLOCK = 32;

/** The numbers that weights of 8 bits stand for. */
function rounded(data: ArrayLike<number>, cols: number): Float32Array {
  const out = Float32Array.from(data);
  for (let row = 0; row < out.length; row += cols) {
    for (let from = 0; from < cols; from += BLOCK) {
      const block = out.subarray(row + from, row + Math.min(cols, from + BLOCK));
      const scale = Math.fround(block.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127);
      block.forEach((value, i) => {
        block[i] = scale === 0 ? 0 : Math.round(value / scale) * scale;
      });
    }
  }
  return out;
}

function multiply(
  format: WeightFormat,
  x: ArrayLike<number>,
  w: Float32Array,
  n: number,
  cols: number,
): Float32Array[] {
  const rows = w.length / cols;
  const matrices = MATRICES[format];
  const arena = new Arena();
  const kept = paddedRows(rows);
  const [out, at, weights, scratch] = [
    arena.reserve(n * kept * 4),
    arena.reserve(n * cols * 4),
    arena.reserve(matrices.bytes(rows, cols)),
    arena.reserve(matrices.scratchBytes(n, cols)),
  ];
  const kernels = loadKernels(arena);
  arena.floats(at, n * cols).set(Array.from(x));
  const first = Math.min(rows, 5) * cols;
  matrices.pack(arena, weights, 0, cols, w.subarray(0, first));
  if (first < w.length) matrices.pack(arena, weights, first / cols, cols, w.subarray(first));
  matrices.multiply(kernels, { out, x: at, w: weights, n, rows: kept, cols, scratch });
  return Array.from({ length: n }, (_, t) => arena.floats(out + t * kept * 4, kept).slice());
}

const float = fc.oneof(fc.double({ min: -4, max: 4, noNaN: true }), fc.constant(0), fc.constant(900)).map(Math.fround);
const shapes = fc.record({
  n: fc.integer({ min: 1, max: 5 }),
  rows: fc.integer({ min: 1, max: 19 }),
  quads: fc.integer({ min: 1, max: 20 }),
});

describe('weights of 8 bits', () => {
  test('multiply as the float64 product with rounded weights, whatever the sizes', () => {
    const inputs = shapes.chain(({ n, rows, quads }) => {
      const floats = (length: number) => fc.array(float, { minLength: length, maxLength: length });
      return fc.tuple(fc.constant({ n, cols: 4 * quads }), floats(n * quads * 4), floats(rows * quads * 4));
    });
    fc.assert(
      fc.property(inputs, ([{ n, cols }, x, data]) => {
        const w = rounded(data, cols);
        const out = multiply('int8', x, Float32Array.from(data), n, cols);
        for (let t = 0; t < n; t++) {
          for (let r = 0; r < paddedRows(w.length / cols); r++) {
            let [sum, size] = [0, 0];
            for (let c = 0; c < cols; c++) {
              const from = c - (c % BLOCK);
              const block = x.slice(t * cols + from, t * cols + Math.min(cols, from + BLOCK));
              sum += x[t * cols + c]! * (w[r * cols + c] ?? 0);
              // half a step of the activation's 16 bits, and float32; what is near 0 may become 0
              size += Math.max(...block.map(Math.abs)) * Math.abs(w[r * cols + c] ?? 0);
            }
            const difference = Math.abs(out[t]![r]! - sum);
            assert.ok(
              difference <= size * (0.5 / 32767 + 2e-6) + 1e-25,
              `token ${t}, row ${r}: ${out[t]![r]}, not ${sum}`,
            );
          }
        }
      }),
      { numRuns: 100 },
    );
  });

  test('give a token the same bits alone and in a batch', () => {
    const [n, cols] = [5, 72];
    const x = Array.from({ length: n * cols }, (_, i) => Math.sin(i * 12.9898) * 3);
    const w = Float32Array.from({ length: 21 * cols }, (_, i) => Math.sin(i * 78.233));
    const together = multiply('int8', x, w, n, cols);
    for (let t = 0; t < n; t++) {
      assert.deepEqual(multiply('int8', x.slice(t * cols, (t + 1) * cols), w, 1, cols)[0], together[t]);
    }
  });
});

describe('a Llama with a byte-level BPE', () => {
  const weights = randomWeights(7);
  const { folder, remove } = writeTinyLlama(weights);
  after(remove);
  const tokenizer = loadTokenizer(folder);
  const prompt = tokenizer.encodeChat([{ role: 'user', content: 'In the inn, 207 thin ducks.' }], {});
  const tokens = [...prompt, ...tokenizer.encode('The duck é is in\n</think>', false)];

  /** Logits after each chunk of `sizes` tokens. */
  function logits(format: WeightFormat, sizes: readonly number[]): Float32Array[] {
    const model = new LlamaModel(folder, readModelConfig(folder), 16, 12, 64, { weights: format, maxLogits: 2 });
    const blocks = [3, 9, 1, 7, 2, 8];
    let position = 0;
    return sizes.map((count) => {
      const tokenIds = tokens.slice(position, position + count);
      const [result] = model.forward([{ tokenIds, position, blocks, logits: true, measure: false }]);
      position += count;
      return Float32Array.from(result!.logits!);
    });
  }

  const known: TinyWeights = new Map(
    [...weights].map(([name, { shape, data }]) => [
      name,
      // the embedding is looked up exactly, and multiplied by in 8 bits
      { shape, data: shape.length === 2 ? rounded(data, shape[1]!) : data },
    ]),
  );

  test('its tokenizer splits digits, joins by its merges, and gives every text back', () => {
    const ids = tokenizer.encode(' then 42 naïve 🦆\n', false);
    assert.equal(tokenizer.decode(ids, false), ' then 42 naïve 🦆\n');
    assert.equal(tokenizer.tokenText(ids[0]!), ' the');
    assert.ok(tokenizer.encode('42', false).length === 2);
    assert.deepEqual(tokenizer.encode('</think>', false), [tokenizer.thinkEndId]);
  });

  test('float32 gives the logits of the float64 reference', () => {
    const [first, last] = logits('float32', [tokens.length - 1, 1]);
    for (const [actual, length] of [
      [first!, tokens.length - 1],
      [last!, tokens.length],
    ] as const) {
      const expected = referenceLogits(weights, tokens.slice(0, length));
      assert.ok(expected.every((value, i) => Math.abs(value - actual[i]!) < 1e-4));
    }
  });

  test('int8 gives those of the reference with rounded weights', () => {
    const expected = referenceLogits(known, tokens, weights.get('model.embed_tokens')!.data);
    const [actual] = logits('int8', [tokens.length]);
    const worst = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - actual![i]!)), 0);
    assert.ok(worst < 2e-3, `${worst}`);
    const plain = referenceLogits(weights, tokens);
    assert.ok(
      plain.some((value, i) => Math.abs(value - actual![i]!) > 1e-2),
      'weights were rounded',
    );
  });

  for (const format of ['float32', 'int8'] as const) {
    test(`${format} gives the same bits whatever the chunks`, () => {
      const once = logits(format, [tokens.length])[0];
      const sizes = [7, 16, 1, 5];
      const rest = tokens.length - sizes.reduce((sum, size) => sum + size, 0);
      assert.deepEqual(logits(format, [...sizes, rest]).at(-1), once);
    });
  }

  test('a file that is cut short, or lacks a tensor, is named', () => {
    const config = readModelConfig(folder);
    const load = () => new LlamaModel(folder, config, 16, 12, 64);
    const file = join(folder, 'model.safetensors');
    const whole = safetensors(weights);
    truncateSync(file, whole.length - 1);
    assert.throws(load, /model\.safetensors is cut short: model\.norm\.weight ends at byte/);
    truncateSync(file, 100);
    assert.throws(load, /model\.safetensors is cut short/);
    writeFileSync(file, safetensors(new Map([...weights].filter(([name]) => name !== 'model.norm'))));
    assert.throws(load, /model\.safetensors has no tensor model\.norm\.weight/);
    writeFileSync(file, whole);
    assert.equal(load().config.vocab, TINY.vocab);
  });
});

test('too little memory is told with what needs it and how to need less', () => {
  const needed = { weights: 300 * 2 ** 20, cache: 700 * 2 ** 20, rest: 2 ** 20 };
  assert.throws(() => checkMemory(needed, 900 * 2 ** 20), /need 1001 MiB .* 900 MiB are free; .*pool_blocks/);
  checkMemory(needed, 1001 * 2 ** 20);
});
