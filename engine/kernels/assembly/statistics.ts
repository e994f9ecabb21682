// Statistics of single tokens: what one query gave each of them. Every array is [blocks][kvHeads][blockSize] float32 for
// one layer, in the order of the cache; an address of 0 means that it is not kept.

/** The attention of one query on the resident tokens, over the query heads of one KV head. */
// @ts-ignore: decorator
@inline
export function addQueryHead(mean: usize, most: usize, scores: usize, padded: i32, weight: f32, first: bool): void {
  const end = scores + ((<usize>padded) << 2);
  const factor = f32x4.splat(weight);
  for (; scores < end; scores += 16) {
    const p = v128.load(scores);
    v128.store(mean, first ? f32x4.mul(p, factor) : f32x4.add(v128.load(mean), f32x4.mul(p, factor)));
    v128.store(most, first ? p : f32x4.max(v128.load(most), p));
    mean += 16;
    most += 16;
  }
}

/**
 * What a query of the request itself does to the tokens of the row's blocks `from` to `to`, for one KV head.
 *
 * @param mean, most [blocks][blockSize] the query's attention: mean over the query heads, and the most of one of them
 * @param row i32 block ids
 * @param headOffset, blockStride bytes from an array's start to the KV head, and from block to block
 * @param turn the window's newer half becomes its older one first
 */
export function noteQuery(
  mean: usize, most: usize, row: usize, from: i32, to: i32, headOffset: usize, blockStride: usize, blockSize: i32,
  attention: usize, total: usize, peak: usize, answer: usize, before: usize, now: usize, last: usize,
  attentionDecay: f32, peakDecay: f32, turn: i32,
): void {
  const step = (<usize>blockSize) << 2;
  const fade = f32x4.splat(attentionDecay), sink = f32x4.splat(peakDecay);
  for (let b = from; b < to; b++) {
    const at = <usize>load<i32>(row + ((<usize>b) << 2)) * blockStride + headOffset;
    const p = mean + <usize>b * step, m = most + <usize>b * step;
    for (let j: usize = 0; j < step; j += 16) {
      const a = v128.load(p + j);
      const i = at + j;
      if (attention) v128.store(attention + i, f32x4.add(f32x4.mul(v128.load(attention + i), fade), a));
      if (total) v128.store(total + i, f32x4.add(v128.load(total + i), a));
      if (peak) v128.store(peak + i, f32x4.max(f32x4.mul(v128.load(peak + i), sink), v128.load(m + j)));
      if (answer) v128.store(answer + i, f32x4.mul(v128.load(answer + i), sink));
      if (now) {
        const newer = v128.load(now + i);
        if (turn) v128.store(before + i, newer);
        v128.store(now + i, turn ? a : f32x4.add(newer, a));
      }
      if (last) v128.store(last + i, a);
    }
  }
}

/** What a query of an answer probe does to the blocks that it shares with its request; parameters as above. */
export function noteProbe(
  most: usize, row: usize, from: i32, to: i32, headOffset: usize, blockStride: usize, blockSize: i32, peak: usize, answer: usize,
): void {
  const step = (<usize>blockSize) << 2;
  for (let b = from; b < to; b++) {
    const at = <usize>load<i32>(row + ((<usize>b) << 2)) * blockStride + headOffset;
    const m = most + <usize>b * step;
    for (let j: usize = 0; j < step; j += 16) {
      const read = v128.load(m + j);
      const i = at + j;
      if (peak) v128.store(peak + i, f32x4.max(v128.load(peak + i), read));
      if (answer) v128.store(answer + i, f32x4.max(v128.load(answer + i), read));
    }
  }
}
