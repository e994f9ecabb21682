// How much keys repeat each other, for merges of KV blocks. Layouts as in ./attention.

/**
 * Reads the keys of one block and KV head as they were before their rotation, scaled to length 1 (a key of zeros stays).
 *
 * @param out [blockSize][headDim]
 * @param block [headDim][blockSize], rotated
 * @param positions i32, the position that each slot's key was rotated by
 * @param cos, sin [positions][headDim / 2]
 */
export function plainKeys(out: usize, block: usize, positions: usize, blockSize: i32, headDim: i32, cos: usize, sin: usize): void {
  const half = (<usize>headDim) << 1;
  const step = (<usize>blockSize) << 2;
  const second = (<usize>(headDim >> 1)) * step;
  for (let j = 0; j < blockSize; j++) {
    const row = <usize>load<i32>(positions + ((<usize>j) << 2)) * half;
    let key = block + ((<usize>j) << 2);
    let sum: f32 = 0;
    for (let d: usize = 0; d < half; d += 4) {
      const c = load<f32>(cos + row + d), s = load<f32>(sin + row + d);
      const a = load<f32>(key), b = load<f32>(key + second);
      store<f32>(out + d, a * c + b * s);
      store<f32>(out + half + d, b * c - a * s);
      sum += a * a + b * b;
      key += step;
    }
    const scale = f32x4.splat(sum > 0 ? <f32>1 / sqrt<f32>(sum) : 0);
    const end = out + (half << 1);
    for (; out < end; out += 16) v128.store(out, f32x4.mul(v128.load(out), scale));
  }
}

/**
 * out[i] = the highest cosine between key i and a key at a later position, -1 where there is none, for the first `count`
 * of n keys. `x` is [n][headDim], each of length 1; headDim is a multiple of 16.
 */
export function repetition(out: usize, x: usize, positions: usize, count: i32, n: i32, headDim: i32): void {
  const bytes = (<usize>headDim) << 2;
  for (let i = 0; i < count; i++) {
    const own = x + <usize>i * bytes;
    const position = load<i32>(positions + ((<usize>i) << 2));
    let best: f32 = -1;
    for (let j = 0; j < n; j++) {
      if (load<i32>(positions + ((<usize>j) << 2)) <= position) continue;
      const other = x + <usize>j * bytes;
      let a = f32x4.splat(0), b = f32x4.splat(0), c = f32x4.splat(0), e = f32x4.splat(0);
      for (let d: usize = 0; d < bytes; d += 64) {
        a = f32x4.add(a, f32x4.mul(v128.load(own + d), v128.load(other + d)));
        b = f32x4.add(b, f32x4.mul(v128.load(own + d, 16), v128.load(other + d, 16)));
        c = f32x4.add(c, f32x4.mul(v128.load(own + d, 32), v128.load(other + d, 32)));
        e = f32x4.add(e, f32x4.mul(v128.load(own + d, 48), v128.load(other + d, 48)));
      }
      const sum = f32x4.add(f32x4.add(a, b), f32x4.add(c, e));
      best = max<f32>(best, f32x4.extract_lane(sum, 0) + f32x4.extract_lane(sum, 1)
        + f32x4.extract_lane(sum, 2) + f32x4.extract_lane(sum, 3));
    }
    store<f32>(out + ((<usize>i) << 2), best);
  }
}
