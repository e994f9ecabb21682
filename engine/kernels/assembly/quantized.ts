// Products with weights of 8 bits. Weights have a scale for each row and block of 32 columns. Activations are rounded to 16
// bits, with a scale for each token and block, so that a block's products and their sum are exact in 32 bits.

/** Columns that share a scale; the last block of a row may have fewer, an even number. */
const BLOCK: i32 = 32;
const MOST: f32 = 32767;

/**
 * Rounds n rows of `cols` floats to 16 bits.
 * @param out [n][cols] i16
 * @param scales [n][blocks] f32: a block's floats are its integers times this
 */
export function quantize(out: usize, scales: usize, x: usize, n: i32, cols: i32): void {
  for (let t = 0; t < n; t++) {
    for (let c = 0; c < cols; c += BLOCK) {
      const bytes = (<usize>min(BLOCK, cols - c)) << 2;
      let most = f32x4.splat(0);
      for (let i: usize = 0; i < bytes; i += 16) most = f32x4.max(most, f32x4.abs(v128.load(x + i)));
      const highest = max<f32>(
        max<f32>(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)),
        max<f32>(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3)),
      );
      store<f32>(scales, highest / MOST);
      // a block of zeros, or of numbers so small that the quotient is not finite, becomes zeros
      const inverse = f32x4.splat(highest > <f32>1e-30 ? MOST / highest : 0);
      for (let i: usize = 0; i < bytes; i += 16) {
        const q = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x + i), inverse)));
        v128.store64_lane(out + (i >> 1), i16x8.narrow_i32x4_s(q, q), 0);
      }
      scales += 4;
      x += bytes;
      out += bytes >> 1;
    }
  }
}

/**
 * out[t][r] = sum_c x[t][c] * w[r][c] for n tokens that `quantize` has rounded.
 * `w` is packed as in model/int8-matrix.ts; rows is a multiple of 8, cols of 4.
 */
export function matmulInt8(out: usize, q: usize, scales: usize, w: usize, n: i32, rows: i32, cols: i32): void {
  const blocks = (cols + BLOCK - 1) / BLOCK;
  const panel = ((<usize>blocks) << 5) + ((<usize>cols) << 3);
  const qStride = (<usize>cols) << 1;
  const scaleStride = (<usize>blocks) << 2;
  const outStride = (<usize>rows) << 2;
  for (let r = 0; r < rows; r += 8) {
    let t = 0;
    for (; t + 2 <= n; t += 2) {
      const o = out + <usize>t * outStride + ((<usize>r) << 2);
      twoTokens(o, outStride, q + <usize>t * qStride, qStride, scales + <usize>t * scaleStride, scaleStride, w, cols);
    }
    if (t < n) {
      oneToken(out + <usize>t * outStride + ((<usize>r) << 2), q + <usize>t * qStride, scales + <usize>t * scaleStride, w, cols);
    }
    w += panel;
  }
}

/** One token times eight rows. */
// @ts-ignore: decorator
@inline
function oneToken(o: usize, q: usize, s: usize, w: usize, cols: i32): void {
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0);
  for (let c = 0; c < cols; c += BLOCK) {
    const end = q + ((<usize>min(BLOCK, cols - c)) << 1);
    const w0 = v128.load(w), w1 = v128.load(w, 16);
    w += 32;
    let i0 = i32x4.splat(0), i1 = i32x4.splat(0);
    for (; q < end; q += 4) {
      const v = v128.load32_splat(q);
      i0 = i32x4.add(i0, i32x4.dot_i16x8_s(v128.load8x8_s(w), v));
      i1 = i32x4.add(i1, i32x4.dot_i16x8_s(v128.load8x8_s(w, 8), v));
      w += 16;
    }
    const scale = v128.load32_splat(s);
    s += 4;
    a0 = f32x4.add(a0, f32x4.mul(f32x4.convert_i32x4_s(i0), f32x4.mul(w0, scale)));
    a1 = f32x4.add(a1, f32x4.mul(f32x4.convert_i32x4_s(i1), f32x4.mul(w1, scale)));
  }
  v128.store(o, a0);
  v128.store(o, a1, 16);
}

/** Two tokens times eight rows, in the same order as oneToken. */
// @ts-ignore: decorator
@inline
function twoTokens(
  o: usize, outStride: usize, q: usize, qStride: usize, s: usize, scaleStride: usize, w: usize, cols: i32,
): void {
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), b0 = f32x4.splat(0), b1 = f32x4.splat(0);
  for (let c = 0; c < cols; c += BLOCK) {
    const end = q + ((<usize>min(BLOCK, cols - c)) << 1);
    const w0 = v128.load(w), w1 = v128.load(w, 16);
    w += 32;
    let i0 = i32x4.splat(0), i1 = i32x4.splat(0), j0 = i32x4.splat(0), j1 = i32x4.splat(0);
    for (; q < end; q += 4) {
      const x0 = v128.load8x8_s(w), x1 = v128.load8x8_s(w, 8);
      w += 16;
      const u = v128.load32_splat(q), v = v128.load32_splat(q + qStride);
      i0 = i32x4.add(i0, i32x4.dot_i16x8_s(x0, u));
      i1 = i32x4.add(i1, i32x4.dot_i16x8_s(x1, u));
      j0 = i32x4.add(j0, i32x4.dot_i16x8_s(x0, v));
      j1 = i32x4.add(j1, i32x4.dot_i16x8_s(x1, v));
    }
    const first = v128.load32_splat(s), second = v128.load32_splat(s + scaleStride);
    s += 4;
    a0 = f32x4.add(a0, f32x4.mul(f32x4.convert_i32x4_s(i0), f32x4.mul(w0, first)));
    a1 = f32x4.add(a1, f32x4.mul(f32x4.convert_i32x4_s(i1), f32x4.mul(w1, first)));
    b0 = f32x4.add(b0, f32x4.mul(f32x4.convert_i32x4_s(j0), f32x4.mul(w0, second)));
    b1 = f32x4.add(b1, f32x4.mul(f32x4.convert_i32x4_s(j1), f32x4.mul(w1, second)));
  }
  v128.store(o, a0);
  v128.store(o, a1, 16);
  o += outStride;
  v128.store(o, b0);
  v128.store(o, b1, 16);
}
