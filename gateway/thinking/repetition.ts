import { fnv1a } from '../../common/fnv1a.ts';

/** So many words and signs in a row, so many times. */
const WINDOW = 64;
const TIMES = 3;
/** What is further back is forgotten. */
const MAX_PIECES = 16_384;

/** A word of the alphabets, or any other sign: in scripts without spaces each sign stands alone. */
const PIECE = /[0-9A-Za-z\u00c0-\u024f\u0370-\u052f]+|\S/gu;
const OPEN_WORD = /[0-9A-Za-z\u00c0-\u024f\u0370-\u052f]+$/u;
const MAX_WORD = 256;

/** Two primes whose product is below 2^53: a window is known by its remainders to both. */
const PRIMES = [67_108_859, 33_554_393] as const;
const BASE = 1_000_003;

/**
 * Finds text that repeats itself as it comes: the same 64 words and signs in a row three times, not overlapping. How the
 * text is cut into pieces on its way makes no difference.
 */
export class Repetition {
  /** By window: where it ended last, and how often it was there. */
  readonly #seen = new Map<number, { at: number; times: number }>();
  readonly #order: number[] = [];
  readonly #hashes = new Uint32Array(WINDOW);
  readonly #leaving = PRIMES.map((prime) => powerOf(BASE, WINDOW - 1, prime));
  readonly #sums = [0, 0];
  #count = 0;
  #open = '';

  /** Takes more of the text; tells whether it repeats itself. */
  add(text: string): boolean {
    const all = this.#open + text;
    // The last word may go on.
    this.#open = OPEN_WORD.exec(all)?.[0] ?? '';
    if (this.#open.length > MAX_WORD) this.#open = '';
    const whole = this.#open === '' ? all : all.slice(0, -this.#open.length);
    let repeats = false;
    for (const piece of whole.match(PIECE) ?? []) repeats = this.#addPiece(fnv1a(piece) >>> 0) || repeats;
    return repeats;
  }

  #addPiece(hash: number): boolean {
    const slot = this.#count % WINDOW;
    const old = this.#hashes[slot] as number;
    this.#hashes[slot] = hash;
    this.#count += 1;
    for (const [index, prime] of PRIMES.entries()) {
      const kept =
        ((this.#sums[index] as number) + prime - times(old % prime, this.#leaving[index] as number, prime)) % prime;
      this.#sums[index] = (times(kept, BASE, prime) + (hash % prime)) % prime;
    }
    if (this.#count < WINDOW) return false;
    const key = (this.#sums[0] as number) * PRIMES[1] + (this.#sums[1] as number);
    const before = this.#seen.get(key);
    if (before === undefined) {
      this.#seen.set(key, { at: this.#count, times: 1 });
      this.#order.push(key);
      if (this.#order.length > 2 * MAX_PIECES) this.#forget();
      return false;
    }
    if (this.#count - before.at < WINDOW) return false;
    before.at = this.#count;
    before.times += 1;
    return before.times >= TIMES;
  }

  #forget(): void {
    for (const key of this.#order.splice(0, MAX_PIECES)) {
      if (this.#count - (this.#seen.get(key)?.at ?? 0) > MAX_PIECES) this.#seen.delete(key);
      else this.#order.push(key);
    }
  }
}

/** Both below 2^26, so that the product is exact. */
function times(a: number, b: number, prime: number): number {
  return (a * b) % prime;
}

function powerOf(base: number, exponent: number, prime: number): number {
  let power = 1;
  for (let i = 0; i < exponent; i++) power = times(power, base, prime);
  return power;
}
