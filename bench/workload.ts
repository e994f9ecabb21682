import { randomInt } from 'node:crypto';
import type { Program } from '../model/program.ts';
import { createRandom } from '../model/random.ts';
import { makeProgram } from '../model/task.ts';

/** Seeds of the generator: 0 to 2^31 - 1. */
const SEEDS = 2 ** 31;

/** A seed from the command line, or a fresh one. Throws RangeError that names the bounds. */
export function chooseSeed(text: string | undefined): number {
  if (text === undefined) return randomInt(SEEDS);
  const seed = Number(text);
  if (text.trim() !== '' && Number.isInteger(seed) && seed >= 0 && seed < SEEDS) return seed;
  throw new RangeError(`--seed must be an integer from 0 to ${SEEDS - 1}, got "${text}"`);
}

/** A limit on the answer to a program of `lines` lines: a third more tokens than the longest right one takes. */
export const answerTokenLimit = (lines: number): number => Math.ceil(23.3 * lines);

/** Programs that the seed fixes. */
export function makePrograms(seed: number, count: number, lines: number): Program[] {
  const random = createRandom(seed);
  return Array.from({ length: count }, () => makeProgram(random, lines));
}
