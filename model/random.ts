import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { mersenne } from 'pure-rand/generator/mersenne';

/** A stream of random numbers that a seed fixes completely. */
export interface Random {
  /** An integer from `from` to `to`, both included. */
  integer(from: number, to: number): number;
  /** A number in [0, 1). */
  fraction(): number;
  /** One of the items, all equally likely; the list must not be empty. */
  pick<Item>(items: readonly Item[]): Item;
  /** A new list with the items in random order. */
  shuffle<Item>(items: readonly Item[]): Item[];
}

/**
 * Starts a stream.
 *
 * @throws {RangeError} if the seed is not an integer from 0 to 2^31 - 1.
 */
export function createRandom(seed: number): Random {
  checkInteger('seed', seed, 0, 0x7fffffff);
  // Unlike the xorshift family, this one gives unrelated streams for neighbouring seeds.
  const generator = mersenne(seed);
  const integer = (from: number, to: number) => uniformInt(generator, from, to);
  return {
    integer,
    fraction: () => uniformFloat64(generator),
    pick: (items) => items[integer(0, items.length - 1)]!,
    shuffle: (items) => {
      const order = [...items];
      for (let last = order.length - 1; last > 0; last--) {
        const other = integer(0, last);
        [order[last], order[other]] = [order[other]!, order[last]!];
      }
      return order;
    },
  };
}

/** @throws {RangeError} naming option, bounds and value, if the value is not an integer within the bounds. */
export function checkInteger(option: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(`${option} must be an integer between ${min} and ${max}, got ${value}`);
  }
}

/** @throws {RangeError} naming option and value, if the value is not a number from 0 to 1. */
export function checkShare(option: string, value: number): void {
  if (!(value >= 0 && value <= 1)) throw new RangeError(`${option} must be between 0 and 1, got ${value}`);
}
