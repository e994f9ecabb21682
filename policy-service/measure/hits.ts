import { grown } from '../grown.ts';
import { linearMass, NOTHING } from './masses.ts';

/** Groups whose evictable blocks hold less than this share of the attention say nothing about them. */
const MIN_EVICTABLE_MASS = 0.02;

/** Four histograms of 32 codes, one for each byte of a word: neighbours often have the same code, and two increments of
 * one counter have to wait for each other. Longer than needed, so that a malformed byte counts nowhere. */
const counts = new Int32Array(512);
/** Four columns a word; bit 7 of a byte says that the column was not read by any group so far. */
let unread = new Uint32Array(64);

const EVERY_BYTE = 0x01010101;
const HIGH_BITS = 0x80808080;
const NO_CODE_BITS = 0xe0e0e0e0;

export const HIT_RULES = ['mass', 'nucleus'] as const;
/** Which masses make a hit; `share` in (0, 1]. */
export interface HitTest {
  rule: (typeof HIT_RULES)[number];
  share: number;
}

/**
 * Which blocks were read: `hits[i]` becomes 1 when column `from + i` passes the test in at least one head group, and 0
 * otherwise.
 *
 * `mass`: the group puts at least `share` of its attention on the block, to the resolution of a log code (a factor of
 * 1.4, to the block's favour). `nucleus`: the block belongs to the smallest set of columns of `[from, to)` with `share`
 * of what those columns hold; columns with the same code enter together, since nothing tells them apart.
 *
 * Codes have 32 values, so a nucleus takes counting and no sorting; four columns are read at once. `codes` holds
 * `groups` rows of `columns` bytes. false, with `hits` undefined, when a byte in `[from, to)` is no log code.
 */
export function findHits(
  codes: Uint8Array,
  groups: number,
  columns: number,
  from: number,
  to: number,
  test: HitTest,
  hits: Uint8Array,
): boolean {
  const width = to - from;
  const words = width >>> 2;
  const bytes = new DataView(codes.buffer, codes.byteOffset, codes.byteLength);
  unread = grown(unread, words + 1);
  unread.fill(HIGH_BITS, 0, words + 1);
  const fixed = test.rule === 'mass' ? lastCodeOf(test.share) : undefined;
  let bits = 0;
  for (let group = 0; group < groups; group += 1) {
    const start = group * columns + from;
    const tail = start + words * 4;
    const end = start + width;
    if (fixed === undefined) bits |= count(codes, bytes, start, tail, end);
    const last = fixed ?? lastCodeOfNucleus(test.share);
    if (last === undefined) continue;
    // Codes have five bits: the sum has bit 7 exactly where the code is above `last`.
    const above = Math.imul(127 - last, EVERY_BYTE);
    for (let at = start, i = 0; at < tail; at += 4, i += 1) {
      const word = bytes.getInt32(at, true);
      bits |= word;
      unread[i]! &= word + above;
    }
    for (let at = tail, shift = 0; at < end; at += 1, shift += 8) {
      bits |= codes[at]!;
      if (codes[at]! <= last) unread[words]! &= ~(128 << shift);
    }
  }
  if ((bits & NO_CODE_BITS) !== 0) return false;
  for (let i = 0; i < width; i += 1) hits[i] = 1 - ((unread[i >>> 2]! >>> (((i & 3) << 3) + 7)) & 1);
  return true;
}

/** The code of a mass in (0, 1]. */
function lastCodeOf(mass: number): number {
  return Math.min(NOTHING - 1, Math.floor(-2 * Math.log2(mass)));
}

/** Fills `counts` with the codes of one group's row: whole words up to `tail`, then bytes. Returns all bits seen. */
function count(codes: Uint8Array, bytes: DataView, start: number, tail: number, end: number): number {
  let bits = 0;
  counts.fill(0, 0, 128);
  for (let at = start; at < tail; at += 4) {
    const word = bytes.getInt32(at, true);
    bits |= word;
    counts[word & 255]! += 1;
    counts[32 + ((word >>> 8) & 255)]! += 1;
    counts[64 + ((word >>> 16) & 255)]! += 1;
    counts[96 + (word >>> 24)]! += 1;
  }
  for (let at = tail; at < end; at += 1) {
    bits |= codes[at]!;
    counts[codes[at]!]! += 1;
  }
  return bits;
}

/**
 * The largest code (least mass) of the nucleus that `counts` describes; undefined: the group says nothing about these
 * blocks.
 */
function lastCodeOfNucleus(share: number): number | undefined {
  let total = 0;
  for (let code = 0; code < NOTHING; code += 1) {
    const count = counts[code]! + counts[code + 32]! + counts[code + 64]! + counts[code + 96]!;
    counts[code] = count;
    total += count * linearMass(code);
  }
  if (total < MIN_EVICTABLE_MASS) return undefined;
  const wanted = share * total;
  let covered = 0;
  for (let code = 0; code < NOTHING; code += 1) {
    covered += counts[code]! * linearMass(code);
    if (covered >= wanted) return code;
  }
  return NOTHING - 1;
}

let sorted = new Float64Array(256);

/** `hits[i]` becomes 1 for the half (rounded up) of `mass[0..count)` with the most mass; of equal ones the newest. */
export function topHalfHits(mass: Float64Array, count: number, hits: Uint8Array): void {
  hits.fill(0, 0, count);
  if (count === 0) return;
  sorted = grown(sorted, count);
  const order = sorted.subarray(0, count);
  order.set(mass.subarray(0, count));
  order.sort();
  const wanted = Math.ceil(count / 2);
  const threshold = order[count - wanted]!;
  let left = wanted;
  for (let i = 0; i < count; i += 1) if (mass[i]! > threshold) left -= 1;
  for (let i = count - 1; i >= 0; i -= 1) {
    if (mass[i]! > threshold) hits[i] = 1;
    else if (mass[i]! === threshold && left > 0) {
      hits[i] = 1;
      left -= 1;
    }
  }
}
