/** Two-sided 95 % quantile of the normal distribution. */
const Z = 1.959964;

/** Wilson's 95 % interval for a share of successes (E. B. Wilson, 1927). `total` is at least 1. */
export function wilson(successes: number, total: number): { low: number; high: number } {
  if (!(total >= 1) || successes < 0 || successes > total) {
    throw new RangeError(`successes must be between 0 and total (at least 1), got ${successes} of ${total}`);
  }
  const share = successes / total;
  const scale = 1 + Z ** 2 / total;
  const centre = (share + Z ** 2 / (2 * total)) / scale;
  const half = (Z / scale) * Math.sqrt((share * (1 - share)) / total + Z ** 2 / (4 * total ** 2));
  return { low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}

/**
 * The lower end of the 95 % interval of the difference between two shares of successes on the same cases, first less second
 * (R. G. Newcombe, Statist. Med. 17, 1998, method 10). The lists are of one length, at least 1.
 */
export function pairedLow(first: readonly boolean[], second: readonly boolean[]): number {
  const n = first.length;
  if (n === 0 || n !== second.length) throw new RangeError(`pairs are needed, got ${n} and ${second.length} cases`);
  const count = (holds: (i: number) => boolean) => first.filter((_, i) => holds(i)).length;
  const both = count((i) => first[i]! && second[i]!);
  const gained = count((i) => first[i]! && !second[i]!);
  const lost = count((i) => !first[i]! && second[i]!);
  const [a, b] = [both + gained, both + lost];
  const product = a * (n - a) * b * (n - b);
  const excess = both * (n - both - gained - lost) - gained * lost;
  const corrected = excess > n / 2 ? excess - n / 2 : Math.min(excess, 0);
  const correlation = product === 0 ? 0 : corrected / Math.sqrt(product);
  const down = a / n - wilson(a, n).low;
  const up = wilson(b, n).high - b / n;
  return (a - b) / n - Math.sqrt(down ** 2 - 2 * correlation * down * up + up ** 2);
}

export interface Interval {
  mean: number;
  low: number;
  high: number;
}

/** The mean of paired differences with its 95 % interval by Student's t. At least 3 differences. */
export function pairedMean(differences: readonly number[]): Interval {
  const n = differences.length;
  if (n < 3) throw new RangeError(`at least 3 differences are needed, got ${n}`);
  const middle = mean(differences);
  const variance = add(differences.map((it) => (it - middle) ** 2)) / (n - 1);
  const half = studentQuantile(n - 1) * Math.sqrt(variance / n);
  return { mean: middle, low: middle - half, high: middle + half };
}

/** Two-sided 95 % quantile for 2 or more degrees of freedom, within 1 % (Abramowitz and Stegun, 26.7.5). */
function studentQuantile(freedom: number): number {
  const terms = [
    (Z ** 3 + Z) / 4,
    (5 * Z ** 5 + 16 * Z ** 3 + 3 * Z) / 96,
    (3 * Z ** 7 + 19 * Z ** 5 + 17 * Z ** 3 - 15 * Z) / 384,
    (79 * Z ** 9 + 776 * Z ** 7 + 1482 * Z ** 5 - 1920 * Z ** 3 - 945 * Z) / 92_160,
  ];
  return terms.reduce((sum, term, i) => sum + term / freedom ** (i + 1), Z);
}

/** The list must not be empty. */
export const mean = (values: readonly number[]): number => add(values) / atLeastOne(values).length;

/** The mean of the two in the middle when their number is even. The list must not be empty. */
export function median(values: readonly number[]): number {
  const sorted = atLeastOne(values).toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle] as number;
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] as number) + high) / 2;
}

/**
 * The smallest value that at least `share` (above 0, at most 1) of the values do not exceed: nearest rank, so that it is
 * always a value that was measured. The list must not be empty.
 */
export function quantile(values: ArrayLike<number>, share: number): number {
  if (!(share > 0 && share <= 1)) throw new RangeError(`share must be above 0 and at most 1, got ${share}`);
  if (values.length === 0) throw new RangeError('there are no values');
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.ceil(share * sorted.length) - 1] as number;
}

export const add = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

export const round = (value: number, digits = 3): number => Number(value.toFixed(digits));

function atLeastOne(values: readonly number[]): readonly number[] {
  if (values.length === 0) throw new RangeError('there are no values');
  return values;
}
