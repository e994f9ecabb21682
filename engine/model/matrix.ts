import type { Arena, Kernels } from '../kernels/kernels.ts';

/** How a model's matrices are kept: `int8` takes a quarter of the memory of `float32`, and of the time to read it. */
export const WEIGHT_FORMATS = ['float32', 'int8'] as const;
export type WeightFormat = (typeof WEIGHT_FORMATS)[number];

/** A way to keep matrices [rows][cols] in the arena and to multiply by them. Rows come in panels of `PANEL`. */
export interface Matrices {
  bytes(rows: number, cols: number): number;
  /** Packs `data`, whole rows, as the rows from `row` on of the matrix at `at`. Rows that are never packed are zero. */
  pack(arena: Arena, at: number, row: number, cols: number, data: Float32Array): void;
  /** Bytes that `multiply` needs at `scratch` for n tokens. */
  scratchBytes(n: number, cols: number): number;
  /** out[t][r] = sum_c x[t][c] * w[r][c] for n tokens; `rows` is a multiple of `PANEL`. */
  multiply(kernels: Kernels, task: Multiplication): void;
}

/** Byte offsets in the arena, and sizes. */
export interface Multiplication {
  out: number;
  x: number;
  w: number;
  n: number;
  rows: number;
  cols: number;
  scratch: number;
}

const PANEL = 8;
/** Columns that share a scale. */
const BLOCK = 32;
const MOST = 127;

/** Rows of a matrix as it is kept. */
export const paddedRows = (rows: number): number => Math.ceil(rows / PANEL) * PANEL;

/** [rows / 8][cols][8], exact. */
const FLOAT32: Matrices = {
  bytes: (rows, cols) => paddedRows(rows) * cols * 4,
  pack(arena, at, row, cols, data) {
    const rows = data.length / cols;
    const out = arena.floats(at, paddedRows(row + rows) * cols);
    for (let r = 0; r < rows; r++) {
      const panel = Math.floor((row + r) / PANEL) * PANEL * cols + ((row + r) % PANEL);
      for (let c = 0; c < cols; c++) out[panel + c * PANEL] = data[r * cols + c]!;
    }
  },
  scratchBytes: () => 0,
  multiply: (kernels, { out, x, w, n, rows, cols }) => kernels.matmul(out, x, w, n, rows, cols),
};

const blocksOf = (cols: number): number => Math.ceil(cols / BLOCK);
const int8PanelBytes = (cols: number): number => PANEL * (4 * blocksOf(cols) + cols);

/**
 * [rows / 8][blocks] of 8 float32 scales and then [columns / 2][8][2] integers of 8 bits; a block is 32 columns, the last one
 * may be fewer. A weight is its integer times its scale; so it is wrong by at most 1 / 254 of the block's largest. Activations
 * are rounded to 16 bits with a scale for each token and block, which is 256 times finer.
 */
const INT8: Matrices = {
  bytes: (rows, cols) => (paddedRows(rows) / PANEL) * int8PanelBytes(cols),
  pack(arena, at, row, cols, data) {
    const rows = data.length / cols;
    const bytes = (paddedRows(row + rows) / PANEL) * int8PanelBytes(cols);
    const scales = arena.floats(at, bytes / 4);
    const integers = new Int8Array(arena.memory.buffer, at, bytes);
    for (let r = 0; r < rows; r++) {
      const lane = (row + r) % PANEL;
      let block = Math.floor((row + r) / PANEL) * int8PanelBytes(cols);
      for (let from = 0; from < cols; from += BLOCK) {
        const count = Math.min(BLOCK, cols - from);
        const first = r * cols + from;
        let most = 0;
        for (let c = first; c < first + count; c++) {
          const value = data[c]!;
          if (value > most) most = value;
          else if (-value > most) most = -value;
        }
        const scale = Math.fround(most / MOST);
        scales[block / 4 + lane] = scale;
        const base = block + 4 * PANEL + 2 * lane;
        for (let c = 0; c < count; c++) {
          // at most MOST, but for a block of numbers near the smallest there are, where it does not matter
          integers[base + (c >> 1) * 2 * PANEL + (c & 1)] =
            scale === 0 ? 0 : Math.floor(data[first + c]! / scale + 0.5);
        }
        block += PANEL * (4 + count);
      }
    }
  },
  scratchBytes: (n, cols) => n * (2 * cols + 4 * blocksOf(cols)),
  multiply(kernels, { out, x, w, n, rows, cols, scratch }) {
    const scales = scratch + n * cols * 2;
    kernels.quantize(scratch, scales, x, n, cols);
    kernels.matmulInt8(out, scratch, scales, w, n, rows, cols);
  },
};

export const MATRICES: Readonly<Record<WeightFormat, Matrices>> = { float32: FLOAT32, int8: INT8 };
