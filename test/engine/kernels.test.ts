import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Arena, loadKernels } from '../../engine/kernels/kernels.ts';

const float = fc.double({ min: -4, max: 4, noNaN: true }).map(Math.fround);
const floats = (count: number) => fc.array(float, { minLength: count, maxLength: count });

function setUp(sizes: number[]) {
  const arena = new Arena();
  const at = sizes.map((size) => arena.reserve(size * 4));
  const kernels = loadKernels(arena);
  return { kernels, at, view: sizes.map((size, i) => arena.floats(at[i]!, size)), arena };
}

const close = (actual: number, expected: number) =>
  Math.abs(actual - expected) <= 1e-4 * Math.max(1, Math.abs(expected));

test('matmul equals the naive product for every number of tokens', () => {
  const shape = fc.record({
    n: fc.integer({ min: 1, max: 9 }),
    panels: fc.integer({ min: 1, max: 3 }),
    cols: fc.integer({ min: 1, max: 12 }),
  });
  const inputs = shape.chain((s) => fc.tuple(fc.constant(s), floats(s.n * s.cols), floats(s.panels * 8 * s.cols)));
  fc.assert(
    fc.property(inputs, ([{ n, panels, cols }, x, w]) => {
      const rows = panels * 8;
      const { kernels, at, view } = setUp([n * rows, x.length, w.length]);
      view[1]!.set(x);
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < cols; c++) view[2]![(Math.floor(r / 8) * cols + c) * 8 + (r % 8)] = w[r * cols + c]!;
      }
      kernels.matmul(at[0]!, at[1]!, at[2]!, n, rows, cols);
      for (let t = 0; t < n; t++) {
        for (let r = 0; r < rows; r++) {
          let sum = 0;
          for (let c = 0; c < cols; c++) sum += x[t * cols + c]! * w[r * cols + c]!;
          assert.ok(close(view[0]![t * rows + r]!, sum), `token ${t}, row ${r}`);
        }
      }
    }),
    { numRuns: 60 },
  );
});

test('matmul gives a token the same bits alone and in a batch', () => {
  const [n, rows, cols] = [7, 16, 32];
  const { kernels, at, view } = setUp([n * rows, n * cols, rows * cols, rows]);
  for (const v of [view[1]!, view[2]!])
    v.forEach((_, i) => {
      v[i] = Math.sin(i * 12.9898) * 3;
    });
  kernels.matmul(at[0]!, at[1]!, at[2]!, n, rows, cols);
  for (let t = 0; t < n; t++) {
    kernels.matmul(at[3]!, at[1]! + t * cols * 4, at[2]!, 1, rows, cols);
    assert.deepEqual(view[3], view[0]!.slice(t * rows, (t + 1) * rows));
  }
});

test('swiglu and rmsNorm equal their formulas', () => {
  fc.assert(
    fc.property(floats(16), (x) => {
      const { kernels, at, view } = setUp([8, 16, 8, 16]);
      view[1]!.set(x);
      view[3]!.fill(2);
      kernels.swiglu(at[0]!, at[1]!, 1, 8);
      kernels.rmsNorm(at[2]!, at[1]!, at[3]!, 1, 8, 1e-6);
      const rms = Math.sqrt(x.slice(0, 8).reduce((sum, v) => sum + v * v, 0) / 8 + 1e-6);
      for (let i = 0; i < 8; i++) {
        assert.ok(close(view[0]![i]!, (x[i]! / (1 + Math.exp(-x[i]!))) * x[i + 8]!));
        assert.ok(close(view[2]![i]!, (x[i]! / rms) * 2));
      }
    }),
  );
});

test('log codes are floor(-2 log2(mass)), at most 31', () => {
  const mass = fc.oneof(
    fc.double({ min: 0, max: 1, noNaN: true }),
    fc.integer({ min: 0, max: 40 }).map((k) => 2 ** (-k / 2)),
    fc.constant(0),
  );
  fc.assert(
    fc.property(mass.map(Math.fround), (m) => {
      const { kernels, at, view, arena } = setUp([1, 1]);
      view[1]![0] = m;
      kernels.logCodes(at[0]!, at[1]!, 1);
      const code = arena.bytes(at[0]!, 1)[0]!;
      const exact = -2 * Math.log2(m);
      const expected = Math.min(31, Math.max(0, Math.floor(exact)));
      // at a boundary, rounding of the logarithm may go either way
      const boundary = Math.abs(exact - Math.round(exact)) < 1e-6 && Math.abs(code - expected) <= 1;
      assert.ok(code === expected || boundary, `mass ${m}: code ${code}, expected ${expected}`);
    }),
    { numRuns: 2000 },
  );
});

for (const blockSize of [8, 16, 24, 32]) {
  test(`paged attention with blocks of ${blockSize} equals the naive one, holes left out`, () => {
    const [heads, kvHeads, headDim, blocks] = [4, 2, 32, 3];
    const keys = 2 * blockSize + 3;
    const headStride = blockSize * headDim * 4;
    const cache = 8 * kvHeads * blockSize * headDim;
    const { kernels, at, view, arena } = setUp([
      heads * headDim,
      heads * headDim,
      blocks,
      cache,
      cache,
      blocks * blockSize,
      kvHeads * blocks,
      headDim,
      headDim,
    ]);
    const [out, q, row, keyCache, valueCache, scores, masses, k, v] = at as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    arena.ints(row, blocks).set([5, 2, 7]);
    const noise = (i: number) => Math.sin(i * 78.233) * 2;
    view[1]!.forEach((_, i) => {
      view[1]![i] = noise(i);
    });
    const stored: { key: number[][]; value: number[][] }[] = [];
    for (let p = 0; p < keys; p++) {
      const vectors = (salt: number) =>
        Array.from({ length: kvHeads }, (_, h) =>
          Array.from({ length: headDim }, (_, d) => Math.fround(noise(salt + p * 997 + h * 31 + d))),
        );
      const entry = { key: vectors(1), value: vectors(5000) };
      stored.push(entry);
      const block = [5, 2, 7][Math.floor(p / blockSize)]!;
      for (let h = 0; h < kvHeads; h++) {
        view[7]!.set(entry.key[h]!);
        view[8]!.set(entry.value[h]!);
        const offset = (block * kvHeads + h) * headStride;
        kernels.storeKv(keyCache + offset, valueCache + offset, k, v, p % blockSize, blockSize, headDim);
      }
    }
    kernels.attention(
      out,
      q,
      row,
      keys,
      keyCache,
      valueCache,
      kvHeads * headStride,
      headStride,
      heads,
      kvHeads,
      headDim,
      blockSize,
      scores,
      masses,
      0,
      0,
    );
    const expectedMass = new Float64Array(kvHeads * blocks);
    for (let h = 0; h < heads; h++) {
      const kv = Math.floor(h / (heads / kvHeads));
      const query = view[1]!.slice(h * headDim, (h + 1) * headDim);
      const logits = stored.map(
        ({ key }) => key[kv]!.reduce((sum, x, d) => sum + x * query[d]!, 0) / Math.sqrt(headDim),
      );
      const highest = Math.max(...logits);
      const total = logits.reduce((sum, x) => sum + Math.exp(x - highest), 0);
      const p = logits.map((x) => Math.exp(x - highest) / total);
      p.forEach((x, i) => {
        expectedMass[kv * blocks + Math.floor(i / blockSize)]! += (x * kvHeads) / heads;
      });
      for (let d = 0; d < headDim; d++) {
        const expected = p.reduce((sum, x, i) => sum + x * stored[i]!.value[kv]![d]!, 0);
        assert.ok(close(view[0]![h * headDim + d]!, expected), `head ${h}, dimension ${d}`);
      }
    }
    for (const [i, expected] of expectedMass.entries()) assert.ok(close(view[6]![i]!, expected), `mass ${i}`);
  });
}

test('keys are read as they were before their rotation, with length 1', () => {
  const [blockSize, headDim, positions] = [8, 32, 40];
  const { arena, kernels, at, view } = setUp([
    blockSize * headDim,
    blockSize * headDim,
    blockSize * headDim,
    positions * (headDim / 2),
    positions * (headDim / 2),
    blockSize,
    blockSize * headDim,
  ]);
  const [plain, out, block, cos, sin, slots, rotated] = [0, 1, 2, 3, 4, 5, 6] as const;
  view[plain]!.forEach((_, i) => {
    view[plain]![i] = Math.sin(i * 12.9898) * 3;
  });
  view[plain]!.fill(0, 3 * headDim, 4 * headDim);
  for (let i = 0; i < view[cos]!.length; i++) {
    const angle = Math.floor(i / (headDim / 2)) * 10_000 ** ((-2 * (i % (headDim / 2))) / headDim);
    view[cos]![i] = Math.cos(angle);
    view[sin]![i] = Math.sin(angle);
  }
  const where = arena.ints(at[slots]!, blockSize);
  where.forEach((_, j) => {
    where[j] = (j * 17) % positions;
  });
  view[rotated]!.set(view[plain]!);
  kernels.rope(at[rotated]!, blockSize, 1, headDim, headDim * 4, at[slots]!, at[cos]!, at[sin]!);
  for (let j = 0; j < blockSize; j++) {
    for (let d = 0; d < headDim; d++) view[block]![d * blockSize + j] = view[rotated]![j * headDim + d]!;
  }
  kernels.plainKeys(at[out]!, at[block]!, at[slots]!, blockSize, headDim, at[cos]!, at[sin]!);
  for (let j = 0; j < blockSize; j++) {
    const key = view[plain]!.slice(j * headDim, (j + 1) * headDim);
    const length = Math.hypot(...key);
    key.forEach((value, d) => {
      const expected = length === 0 ? 0 : value / length;
      assert.ok(close(view[out]![j * headDim + d]!, expected), `key ${j}, dimension ${d}`);
    });
  }
});

test('repetition is the highest cosine with a later key, whatever the order of the slots', () => {
  const [count, n, headDim] = [9, 14, 32];
  const { arena, kernels, at, view } = setUp([count, n * headDim, n]);
  for (let i = 0; i < n; i++) {
    const key = Float64Array.from({ length: headDim }, (_, d) => Math.sin((i * headDim + d) * 78.233));
    view[1]!.set(
      key.map((value) => value / Math.hypot(...key)),
      i * headDim,
    );
  }
  const positions = arena.ints(at[2]!, n);
  positions.set([5, 90, 7, 3, 60, 2, 91, 40, 8, 95, 96, 97, 1, 0]);
  kernels.repetition(at[0]!, at[1]!, at[2]!, count, n, headDim);
  for (let i = 0; i < count; i++) {
    let expected = -1;
    for (let j = 0; j < n; j++) {
      if (positions[j]! <= positions[i]!) continue;
      let dot = 0;
      for (let d = 0; d < headDim; d++) dot += view[1]![i * headDim + d]! * view[1]![j * headDim + d]!;
      expected = Math.max(expected, dot);
    }
    assert.ok(close(view[0]![i]!, expected), `key ${i}`);
  }
  positions.fill(4);
  kernels.repetition(at[0]!, at[1]!, at[2]!, count, n, headDim);
  assert.ok(view[0]!.every((value) => value === -1));
});
