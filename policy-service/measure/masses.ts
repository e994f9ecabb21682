/** The log code of no mass at all. */
export const NOTHING = 31;

/**
 * Linear mass of each byte: the geometric middle of a log code's interval, 0 for code 31 and for bytes that are no
 * code, so that a malformed byte cannot weigh anything.
 */
const LINEAR = Float64Array.from({ length: 256 }, (_, code) => (code < NOTHING ? 2 ** (-(code + 0.5) / 2) : 0));

export function linearMass(code: number): number {
  return LINEAR[code] ?? 0;
}

/** `mean[i]` becomes the mean over all head groups of the mass of column `from + i`, for the columns `[from, to)`. */
export function meanMass(
  codes: Uint8Array,
  groups: number,
  columns: number,
  from: number,
  to: number,
  mean: Float64Array,
): void {
  const width = to - from;
  mean.fill(0, 0, width);
  for (let group = 0; group < groups; group += 1) {
    const start = group * columns + from;
    for (let i = 0; i < width; i += 1) mean[i]! += LINEAR[codes[start + i]!]!;
  }
  for (let i = 0; i < width; i += 1) mean[i]! /= groups;
}

/** `peak[i]` becomes at least the most that one head group puts on column `from + i`, for the columns `[from, to)`. */
export function raisePeaks(
  codes: Uint8Array,
  groups: number,
  columns: number,
  from: number,
  to: number,
  peak: Float64Array,
): void {
  const width = to - from;
  for (let group = 0; group < groups; group += 1) {
    const start = group * columns + from;
    for (let i = 0; i < width; i += 1) {
      const mass = LINEAR[codes[start + i]!]!;
      if (mass > peak[i]!) peak[i] = mass;
    }
  }
}

/**
 * `peaks[column * groups + group]` becomes at least what the group puts on the column, for the first `width` columns.
 */
export function raiseGroupPeaks(
  codes: Uint8Array,
  groups: number,
  columns: number,
  width: number,
  peaks: Float64Array,
): void {
  for (let column = 0; column < width; column += 1) {
    for (let group = 0; group < groups; group += 1) {
      const mass = LINEAR[codes[group * columns + column]!]!;
      if (mass > peaks[column * groups + group]!) peaks[column * groups + group] = mass;
    }
  }
}

/** Adds what each head group puts on one column to `sums[at..at + groups)`. */
export function addLinear(
  codes: Uint8Array,
  groups: number,
  columns: number,
  column: number,
  sums: Float64Array,
  at: number,
): void {
  for (let group = 0; group < groups; group += 1) sums[at + group]! += LINEAR[codes[group * columns + column]!]!;
}
