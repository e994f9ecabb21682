// Dense kernels over float32. Pointers are byte offsets into the imported memory; sizes are counts of floats.
// Each output is accumulated in one fixed order, so a token's result does not depend on what else is in the batch.

/**
 * out[t][r] = sum_c x[t][c] * w[r][c] for n tokens.
 * `w` is packed as [rows / 8][cols][8] (see pack.ts); rows is a multiple of 8.
 */
export function matmul(out: usize, x: usize, w: usize, n: i32, rows: i32, cols: i32): void {
  const panel = (<usize>cols) << 5;
  const xStride = (<usize>cols) << 2;
  const outStride = (<usize>rows) << 2;
  for (let r = 0; r < rows; r += 8) {
    let t = 0;
    for (; t + 4 <= n; t += 4) {
      const x0 = x + <usize>t * xStride;
      const o = out + <usize>t * outStride + ((<usize>r) << 2);
      matmul4(o, outStride, x0, xStride, w, cols);
    }
    for (; t < n; t++) {
      matmul1(out + <usize>t * outStride + ((<usize>r) << 2), x + <usize>t * xStride, w, cols);
    }
    w += panel;
  }
}

/** Four tokens times eight rows. */
// @ts-ignore: decorator
@inline
function matmul4(o: usize, outStride: usize, x0: usize, xStride: usize, w: usize, cols: i32): void {
  const x1 = x0 + xStride;
  const x2 = x1 + xStride;
  const x3 = x2 + xStride;
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), b0 = f32x4.splat(0), b1 = f32x4.splat(0);
  let c0 = f32x4.splat(0), c1 = f32x4.splat(0), d0 = f32x4.splat(0), d1 = f32x4.splat(0);
  const end = (<usize>cols) << 2;
  for (let c: usize = 0; c < end; c += 4) {
    const w0 = v128.load(w), w1 = v128.load(w, 16);
    w += 32;
    const va = v128.load32_splat(x0 + c);
    a0 = f32x4.add(a0, f32x4.mul(va, w0));
    a1 = f32x4.add(a1, f32x4.mul(va, w1));
    const vb = v128.load32_splat(x1 + c);
    b0 = f32x4.add(b0, f32x4.mul(vb, w0));
    b1 = f32x4.add(b1, f32x4.mul(vb, w1));
    const vc = v128.load32_splat(x2 + c);
    c0 = f32x4.add(c0, f32x4.mul(vc, w0));
    c1 = f32x4.add(c1, f32x4.mul(vc, w1));
    const vd = v128.load32_splat(x3 + c);
    d0 = f32x4.add(d0, f32x4.mul(vd, w0));
    d1 = f32x4.add(d1, f32x4.mul(vd, w1));
  }
  v128.store(o, a0);
  v128.store(o, a1, 16);
  o += outStride;
  v128.store(o, b0);
  v128.store(o, b1, 16);
  o += outStride;
  v128.store(o, c0);
  v128.store(o, c1, 16);
  o += outStride;
  v128.store(o, d0);
  v128.store(o, d1, 16);
}

/** One token times eight rows, in the same order as matmul4. */
// @ts-ignore: decorator
@inline
function matmul1(o: usize, x: usize, w: usize, cols: i32): void {
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0);
  const end = x + ((<usize>cols) << 2);
  for (; x < end; x += 4) {
    const v = v128.load32_splat(x);
    a0 = f32x4.add(a0, f32x4.mul(v, v128.load(w)));
    a1 = f32x4.add(a1, f32x4.mul(v, v128.load(w, 16)));
    w += 32;
  }
  v128.store(o, a0);
  v128.store(o, a1, 16);
}

/** out[t] = x[t] / rms(x[t]) * w, for n rows of `size` floats (a multiple of 4). */
export function rmsNorm(out: usize, x: usize, w: usize, n: i32, size: i32, eps: f32): void {
  const bytes = (<usize>size) << 2;
  for (let t = 0; t < n; t++) {
    let acc = f32x4.splat(0);
    for (let i: usize = 0; i < bytes; i += 16) {
      const v = v128.load(x + i);
      acc = f32x4.add(acc, f32x4.mul(v, v));
    }
    const sum = f32x4.extract_lane(acc, 0) + f32x4.extract_lane(acc, 1)
      + f32x4.extract_lane(acc, 2) + f32x4.extract_lane(acc, 3);
    const scale = f32x4.splat(<f32>1 / sqrt<f32>(sum / <f32>size + eps));
    for (let i: usize = 0; i < bytes; i += 16) {
      v128.store(out + i, f32x4.mul(f32x4.mul(v128.load(x + i), scale), v128.load(w + i)));
    }
    x += bytes;
    out += bytes;
  }
}

/** x += y, `count` floats (a multiple of 4). */
export function add(x: usize, y: usize, count: i32): void {
  const end = x + ((<usize>count) << 2);
  for (; x < end; x += 16) {
    v128.store(x, f32x4.add(v128.load(x), v128.load(y)));
    y += 16;
  }
}

/** SwiGLU: out[t][i] = silu(gu[t][i]) * gu[t][size + i]; `size` is a multiple of 4. */
export function swiglu(out: usize, gu: usize, n: i32, size: i32): void {
  const bytes = (<usize>size) << 2;
  const one = f32x4.splat(1);
  for (let t = 0; t < n; t++) {
    for (let i: usize = 0; i < bytes; i += 16) {
      const g = v128.load(gu + i);
      const s = f32x4.div(g, f32x4.add(one, exp4(f32x4.neg(g))));
      v128.store(out + i, f32x4.mul(s, v128.load(gu + bytes + i)));
    }
    gu += bytes << 1;
    out += bytes;
  }
}

/** exp of four floats, relative error under 2e-7 (Cephes' polynomial); the argument is clamped to [-80, 88]. */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  x = f32x4.min(f32x4.max(x, f32x4.splat(-80)), f32x4.splat(88));
  const k = f32x4.nearest(f32x4.mul(x, f32x4.splat(1.44269504088896341)));
  let r = f32x4.sub(x, f32x4.mul(k, f32x4.splat(0.693359375)));
  r = f32x4.sub(r, f32x4.mul(k, f32x4.splat(-2.12194440e-4)));
  let p = f32x4.splat(1.9875691500e-4);
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.3981999507e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(5.0000001201e-1));
  p = f32x4.add(f32x4.add(f32x4.mul(p, f32x4.mul(r, r)), r), f32x4.splat(1));
  const e = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(k), i32x4.splat(127)), 23);
  return f32x4.mul(p, e);
}
