/**
 * The one selection routine: of the candidates `blocks[0..count)`, ascending and already free of everything protected,
 * moves the `n` with the lowest keep value to the front of `blocks`, ascending by index. Of equal values the lower
 * index leaves first. `values[i]` belongs to `blocks[i]`, must be finite, and is reordered along.
 *
 * Returns `n`, or 0 when there are fewer than `n` candidates; then nothing was moved.
 */
export function takeLowest(blocks: Int32Array, values: Float64Array, count: number, n: number): number {
  if (n <= 0 || n > count) return 0;
  if (n === 1) {
    swap(blocks, values, 0, lowest(values, count));
    return 1;
  }
  if (n < count) partition(blocks, values, count, n);
  blocks.subarray(0, n).sort();
  return n;
}

/** Position of the lowest value; the candidates are ascending, so the first of equal ones has the lowest index. */
function lowest(values: Float64Array, count: number): number {
  let best = 0;
  let value = values[0]!;
  for (let i = 1; i < count; i += 1) {
    if (values[i]! < value) {
      value = values[i]!;
      best = i;
    }
  }
  return best;
}

/** Quickselect: afterwards the first `n` are the `n` lowest by (value, index), in any order. */
function partition(blocks: Int32Array, values: Float64Array, count: number, n: number): void {
  let low = 0;
  let high = count - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (before(blocks, values, middle, low)) swap(blocks, values, middle, low);
    if (before(blocks, values, high, low)) swap(blocks, values, high, low);
    if (before(blocks, values, high, middle)) swap(blocks, values, high, middle);
    const value = values[middle]!;
    const block = blocks[middle]!;
    let i = low;
    let j = high;
    while (i <= j) {
      while (values[i]! < value || (values[i]! === value && blocks[i]! < block)) i += 1;
      while (values[j]! > value || (values[j]! === value && blocks[j]! > block)) j -= 1;
      if (i <= j) {
        swap(blocks, values, i, j);
        i += 1;
        j -= 1;
      }
    }
    if (n - 1 <= j) high = j;
    else if (n - 1 >= i) low = i;
    else return;
  }
}

function before(blocks: Int32Array, values: Float64Array, a: number, b: number): boolean {
  return values[a]! < values[b]! || (values[a]! === values[b]! && blocks[a]! < blocks[b]!);
}

function swap(blocks: Int32Array, values: Float64Array, a: number, b: number): void {
  const block = blocks[a]!;
  blocks[a] = blocks[b]!;
  blocks[b] = block;
  const value = values[a]!;
  values[a] = values[b]!;
  values[b] = value;
}
