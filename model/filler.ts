import type { Form } from './form.ts';
import { digitToken, encode, FILLER_WORDS, idOf } from './vocab.ts';

/** A line as its filler needs it: ids of the words of target and operands, and the values of the operands. */
export interface FilledLine {
  readonly name: number;
  readonly left: number;
  readonly right: number;
  readonly leftValue: number;
  readonly rightValue: number;
}

/** The words after a line's result. Nothing in them is needed later. */
export const FILLERS: Readonly<Record<Form, (line: FilledLine) => number[]>> = Object.freeze({
  plain: plainFiller,
  verbose: verboseFiller,
});

/** The last `result % 5` words of "so that looks right". */
function plainFiller({ leftValue, rightValue }: FilledLine): number[] {
  const result = (leftValue + rightValue) % 10;
  return FILLER_WORDS.slice(0, result % (FILLER_WORDS.length + 1))
    .reverse()
    .map(idOf);
}

/**
 * "hmm cat is dog plus 5 . count 1 2 3 4 5 6 . dog first 5 second . fine": counts from the left value up, modulo 10, as
 * often as the right value says.
 */
function verboseFiller({ name, left, right, leftValue, rightValue }: FilledLine): number[] {
  const count = Array.from({ length: rightValue + 1 }, (_, step) => digitToken((leftValue + step) % 10));
  const musing = [
    ...encode('hmm'),
    name,
    ...encode('is'),
    left,
    ...encode('plus'),
    right,
    ...encode('. count'),
    ...count,
  ];
  return [...musing, ...encode('.'), left, ...encode('first'), right, ...encode('second . fine')];
}
