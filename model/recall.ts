import { TOKEN_KINDS } from './program.ts';
import { checkInteger, type Random } from './random.ts';
import {
  digitToken,
  LINE_LABELS,
  lineToken,
  MAX_LINES,
  nameToken,
  REGISTER_NAMES,
  TOKEN,
  valueToken,
} from './vocab.ts';

/** A token sequence for training. */
export interface Sequence {
  readonly ids: readonly number[];
  /** Kind of every token, as an index in `TOKEN_KINDS`; kind 0 (`prompt`) carries no loss. */
  readonly kinds: readonly number[];
  /** Indices in `ids` where a line starts, without the first; the trainer may skip positions there. */
  readonly lineStarts: readonly number[];
  /** For every token that is looked up: its index, then the earlier indices that hold its value. */
  readonly lookups: readonly (readonly number[])[];
}

const UNPREDICTABLE = TOKEN_KINDS.indexOf('prompt');
const LOOKUP = TOKEN_KINDS.indexOf('operand-lookup');
const COPY = TOKEN_KINDS.indexOf('copied-definition');

/**
 * A dense pre-training sequence that teaches nothing but looking things up: `lines` definitions as in a prompt,
 * then a random mix of `name =v` (a repeated name keeps its value) and copies of definitions, up to `10 * lines + 4`
 * tokens in all. Looking up is learned from it in a fraction of the tokens that whole programs need.
 *
 * @param lines number of definitions, 1 to 59.
 * @throws {RangeError} if `lines` is out of bounds.
 */
export function makeRecall(random: Random, lines: number): Sequence {
  checkInteger('lines', lines, 1, MAX_LINES);
  const names = random.shuffle(REGISTER_NAMES.map((_, index) => nameToken(index))).slice(0, lines);
  const labels = random.shuffle(Array.from({ length: LINE_LABELS }, (_, index) => lineToken(index + 1)));
  const operand = () => (random.integer(0, 12) === 0 ? digitToken(random.integer(0, 9)) : random.pick(names));
  const definitions = names.map((name, index) => [labels[index]!, name, operand(), operand(), TOKEN.colon]);
  const values = names.map(() => valueToken(random.integer(0, 9)));

  const ids = [TOKEN.bos, TOKEN.user, ...definitions.flat(), TOKEN.assistant, TOKEN.think];
  const kinds = ids.map(() => UNPREDICTABLE);
  const lineStarts: number[] = [];
  const seen = new Set<number>();
  const length = 10 * lines + 4;
  while (ids.length < length) {
    const index = random.integer(0, lines - 1);
    lineStarts.push(ids.length);
    if (random.integer(0, 2) === 0) {
      ids.push(...definitions[index]!);
      kinds.push(UNPREDICTABLE, COPY, COPY, COPY, COPY);
    } else {
      ids.push(names[index]!, values[index]!);
      kinds.push(UNPREDICTABLE, seen.has(index) ? LOOKUP : UNPREDICTABLE);
      seen.add(index);
    }
  }
  return { ids: ids.slice(0, length), kinds: kinds.slice(0, length), lineStarts, lookups: [] };
}
