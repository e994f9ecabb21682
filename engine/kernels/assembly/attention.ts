import { exp4 } from './linear';
import { addQueryHead } from './statistics';

// Paged attention over float32. One block of one layer and KV head holds its keys as [headDim][blockSize], so that a
// vector holds the same dimension of four keys, and its values as [blockSize][headDim].

/**
 * Rotates `heads` vectors of `headDim` floats for each of n tokens (RoPE, half-split as in LlamaForCausalLM).
 * A token's vectors start at x + t * stride bytes. `cos` and `sin` are [positions][headDim / 2].
 */
export function rope(x: usize, n: i32, heads: i32, headDim: i32, stride: usize, positions: usize, cos: usize, sin: usize): void {
  const half = (<usize>headDim) << 1;
  for (let t = 0; t < n; t++) {
    const row = <usize>load<i32>(positions + ((<usize>t) << 2)) * half;
    let h = x + <usize>t * stride;
    for (let i = 0; i < heads; i++) {
      for (let d: usize = 0; d < half; d += 16) {
        const c = v128.load(cos + row + d), s = v128.load(sin + row + d);
        const a = v128.load(h + d), b = v128.load(h + half + d);
        v128.store(h + d, f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)));
        v128.store(h + half + d, f32x4.add(f32x4.mul(b, c), f32x4.mul(a, s)));
      }
      h += half << 1;
    }
  }
}

/** Writes one KV head's rotated key and value of one token into slot `offset` of a block. */
export function storeKv(keyBlock: usize, valueBlock: usize, k: usize, v: usize, offset: i32, blockSize: i32, headDim: i32): void {
  let key = keyBlock + ((<usize>offset) << 2);
  const step = (<usize>blockSize) << 2;
  for (let d = 0; d < headDim; d++) {
    store<f32>(key, load<f32>(k + ((<usize>d) << 2)));
    key += step;
  }
  memory.copy(valueBlock + ((<usize>(offset * headDim)) << 2), v, (<usize>headDim) << 2);
}

/**
 * Attention of one query token for all heads of one layer.
 *
 * @param out [heads][headDim]
 * @param q [heads][headDim], rotated
 * @param row the token's resident blocks in logical order (holes dropped), i32 block ids
 * @param keys keys to attend to: those of `row`, the last block filled up to keys % blockSize
 * @param keyCache keys of this layer; block b and KV head h start at b * blockStride + h * headStride bytes
 * @param valueCache likewise for values
 * @param scores scratch, keys rounded up to blockSize floats
 * @param masses [kvHeads][blocks] attention mass of each block, averaged over the KV head's query heads; 0: not measured
 * @param mean, most [kvHeads][blocks][blockSize] attention on each token: mean over the KV head's query heads, and the most
 * of one of them; 0: not wanted
 */
export function attention(
  out: usize, q: usize, row: usize, keys: i32, keyCache: usize, valueCache: usize, blockStride: usize, headStride: usize,
  heads: i32, kvHeads: i32, headDim: i32, blockSize: i32, scores: usize, masses: usize, mean: usize, most: usize,
): void {
  const blocks = (keys + blockSize - 1) / blockSize;
  const group = heads / kvHeads;
  const scale = <f32>1 / sqrt<f32>(<f32>headDim);
  const vectorBytes = (<usize>headDim) << 2;
  for (let kv = 0; kv < kvHeads; kv++) {
    const headOffset = <usize>kv * headStride;
    const mass = masses + ((<usize>(kv * blocks)) << 2);
    if (masses != 0) memory.fill(mass, 0, (<usize>blocks) << 2);
    for (let g = 0; g < group; g++) {
      let s = scores;
      for (let b = 0; b < blocks; b++) {
        const id = <usize>load<i32>(row + ((<usize>b) << 2));
        scoreBlock(s, q, keyCache + id * blockStride + headOffset, headDim, blockSize, scale);
        s += (<usize>blockSize) << 2;
      }
      softmax(scores, keys, blocks * blockSize, -f32.MAX_VALUE);
      if (masses != 0) addMasses(mass, scores, blocks, blockSize, <f32>1 / <f32>group);
      if (mean != 0) {
        const at = (<usize>(kv * blocks * blockSize)) << 2;
        addQueryHead(mean + at, most + at, scores, blocks * blockSize, <f32>1 / <f32>group, g == 0);
      }
      mix(out, scores, row, keys, valueCache + headOffset, blockStride, headDim, blockSize);
      q += vectorBytes;
      out += vectorBytes;
    }
  }
}

/**
 * What one query token would give to each token of `row`, without computing what it reads. Parameters are those of `attention`.
 *
 * @param beside [heads] for each query head, the logarithm of the sum of the exponentials of its scores of keys outside `row`
 */
export function weigh(
  q: usize, beside: usize, row: usize, keys: i32, keyCache: usize, blockStride: usize, headStride: usize,
  heads: i32, kvHeads: i32, headDim: i32, blockSize: i32, scores: usize, mean: usize, most: usize,
): void {
  const blocks = (keys + blockSize - 1) / blockSize;
  const group = heads / kvHeads;
  const scale = <f32>1 / sqrt<f32>(<f32>headDim);
  for (let kv = 0; kv < kvHeads; kv++) {
    const at = (<usize>(kv * blocks * blockSize)) << 2;
    for (let g = 0; g < group; g++) {
      let s = scores;
      for (let b = 0; b < blocks; b++) {
        const id = <usize>load<i32>(row + ((<usize>b) << 2));
        scoreBlock(s, q, keyCache + id * blockStride + <usize>kv * headStride, headDim, blockSize, scale);
        s += (<usize>blockSize) << 2;
      }
      softmax(scores, keys, blocks * blockSize, load<f32>(beside));
      addQueryHead(mean + at, most + at, scores, blocks * blockSize, <f32>1 / <f32>group, g == 0);
      q += (<usize>headDim) << 2;
      beside += 4;
    }
  }
}

/** scores[j] = q . key j * scale for the keys of one block, 16 at a time where the block size allows, else 8. */
// @ts-ignore: decorator
@inline
function scoreBlock(scores: usize, q: usize, block: usize, headDim: i32, blockSize: i32, scale: f32): void {
  const step = (<usize>blockSize) << 2;
  const factor = f32x4.splat(scale);
  const end = q + ((<usize>headDim) << 2);
  let j: usize = 0;
  for (; j + 64 <= step; j += 64) {
    let key = block + j;
    let a = f32x4.splat(0), b = f32x4.splat(0), c = f32x4.splat(0), d = f32x4.splat(0);
    for (let p = q; p < end; p += 4) {
      const v = v128.load32_splat(p);
      a = f32x4.add(a, f32x4.mul(v, v128.load(key)));
      b = f32x4.add(b, f32x4.mul(v, v128.load(key, 16)));
      c = f32x4.add(c, f32x4.mul(v, v128.load(key, 32)));
      d = f32x4.add(d, f32x4.mul(v, v128.load(key, 48)));
      key += step;
    }
    v128.store(scores + j, f32x4.mul(a, factor));
    v128.store(scores + j, f32x4.mul(b, factor), 16);
    v128.store(scores + j, f32x4.mul(c, factor), 32);
    v128.store(scores + j, f32x4.mul(d, factor), 48);
  }
  for (; j < step; j += 32) {
    let key = block + j;
    let a = f32x4.splat(0), b = f32x4.splat(0);
    for (let p = q; p < end; p += 4) {
      const v = v128.load32_splat(p);
      a = f32x4.add(a, f32x4.mul(v, v128.load(key)));
      b = f32x4.add(b, f32x4.mul(v, v128.load(key, 16)));
      key += step;
    }
    v128.store(scores + j, f32x4.mul(a, factor));
    v128.store(scores + j, f32x4.mul(b, factor), 16);
  }
}

/**
 * Softmax over the first `keys` of `padded` scores (a multiple of 8); the padding becomes 0. `beside` is a score that takes its
 * part of the attention without a key; -f32.MAX_VALUE: there is none.
 */
// @ts-ignore: decorator
@inline
function softmax(scores: usize, keys: i32, padded: i32, beside: f32): void {
  const end = scores + ((<usize>padded) << 2);
  for (let p = scores + ((<usize>keys) << 2); p < end; p += 4) store<f32>(p, -f32.MAX_VALUE);
  let m = f32x4.splat(-f32.MAX_VALUE);
  for (let p = scores; p < end; p += 16) m = f32x4.max(m, v128.load(p));
  const highest = f32x4.splat(max<f32>(beside, max<f32>(
    max<f32>(f32x4.extract_lane(m, 0), f32x4.extract_lane(m, 1)),
    max<f32>(f32x4.extract_lane(m, 2), f32x4.extract_lane(m, 3)),
  )));
  let total = f32x4.splat(0);
  for (let p = scores; p < end; p += 16) {
    const e = exp4(f32x4.sub(v128.load(p), highest));
    v128.store(p, e);
    total = f32x4.add(total, e);
  }
  // exp4 clamps, so a padded key got exp(-80), about 2e-35: nothing beside the sum, which holds at least one 1
  const other = f32x4.extract_lane(exp4(f32x4.sub(f32x4.splat(beside), highest)), 0);
  const inverse = f32x4.splat(<f32>1 / (f32x4.extract_lane(total, 0) + f32x4.extract_lane(total, 1)
    + f32x4.extract_lane(total, 2) + f32x4.extract_lane(total, 3) + other));
  for (let p = scores; p < end; p += 16) v128.store(p, f32x4.mul(v128.load(p), inverse));
}

// @ts-ignore: decorator
@inline
function addMasses(mass: usize, scores: usize, blocks: i32, blockSize: i32, weight: f32): void {
  const step = (<usize>blockSize) << 2;
  for (let b = 0; b < blocks; b++) {
    let sum = f32x4.splat(0);
    for (let p = scores; p < scores + step; p += 16) sum = f32x4.add(sum, v128.load(p));
    const total = f32x4.extract_lane(sum, 0) + f32x4.extract_lane(sum, 1)
      + f32x4.extract_lane(sum, 2) + f32x4.extract_lane(sum, 3);
    store<f32>(mass, load<f32>(mass) + total * weight);
    mass += 4;
    scores += step;
  }
}

/** out[d] = sum over keys of p[key] * value[key][d], 32 dimensions at a time; headDim is a multiple of 32. */
// @ts-ignore: decorator
@inline
function mix(out: usize, p: usize, row: usize, keys: i32, values: usize, blockStride: usize, headDim: i32, blockSize: i32): void {
  const step = (<usize>headDim) << 2;
  for (let d: usize = 0; d < step; d += 128) {
    let a = f32x4.splat(0), b = f32x4.splat(0), c = f32x4.splat(0), e = f32x4.splat(0);
    let f = f32x4.splat(0), g = f32x4.splat(0), h = f32x4.splat(0), i = f32x4.splat(0);
    let weight = p;
    let left = keys;
    for (let r = row; left > 0; r += 4) {
      let v = values + <usize>load<i32>(r) * blockStride + d;
      const count = min(left, blockSize);
      for (let j = 0; j < count; j++) {
        const w = v128.load32_splat(weight);
        a = f32x4.add(a, f32x4.mul(w, v128.load(v)));
        b = f32x4.add(b, f32x4.mul(w, v128.load(v, 16)));
        c = f32x4.add(c, f32x4.mul(w, v128.load(v, 32)));
        e = f32x4.add(e, f32x4.mul(w, v128.load(v, 48)));
        f = f32x4.add(f, f32x4.mul(w, v128.load(v, 64)));
        g = f32x4.add(g, f32x4.mul(w, v128.load(v, 80)));
        h = f32x4.add(h, f32x4.mul(w, v128.load(v, 96)));
        i = f32x4.add(i, f32x4.mul(w, v128.load(v, 112)));
        v += step;
        weight += 4;
      }
      left -= count;
    }
    const o = out + d;
    v128.store(o, a);
    v128.store(o, b, 16);
    v128.store(o, c, 32);
    v128.store(o, e, 48);
    v128.store(o, f, 64);
    v128.store(o, g, 80);
    v128.store(o, h, 96);
    v128.store(o, i, 112);
  }
}

/** Log codes of `count` masses: c = min(31, floor(-2 * log2(mass))), read off the float's exponent and mantissa. */
export function logCodes(out: usize, masses: usize, count: i32): void {
  for (let i = 0; i < count; i++) {
    const bits = load<u32>(masses + ((<usize>i) << 2));
    const exponent = <i32>(bits >> 23) - 127;
    const mantissa = bits & 0x7fffff;
    // -2 log2(m * 2^e) = -2e - 2 log2(m), and 2 log2(m) is 0 at m = 1, in (0, 1] up to the root of 2, in (1, 2) above
    const code = -2 * exponent - (mantissa == 0 ? 0 : mantissa <= 0x3504f3 ? 1 : 2);
    store<u8>(out + <usize>i, <u8>max(0, min(31, code)));
  }
}
