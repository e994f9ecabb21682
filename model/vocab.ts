/**
 * The word list of crystal-mini. A token is one word; an id is the word's index in `VOCABULARY`.
 *
 * Ids are frozen: trained weights depend on them. New words may only be appended at the end.
 */

/** Labels `L1`..`L64` exist. */
export const LINE_LABELS = 64;

/** Labels `Q1`..`Q6` exist, so a program asks at most this many registers. */
export const MAX_QUERIES = 6;

const SPECIAL_WORDS = ['<pad>', '<bos>', '<eos>', '<unk>', '<|user|>', '<|assistant|>', '<think>', '</think>'] as const;
const STRUCTURE_WORDS = [';', ':', '+', '->'] as const;
/** Words of the plain form's filler. */
export const FILLER_WORDS = ['right', 'looks', 'that', 'so'] as const;
/** Words of the verbose form; the system message `verbose` asks for it. */
const VERBOSE_WORDS = ['<|system|>', 'verbose', 'hmm', 'is', 'plus', '.', 'count', 'first', 'second', 'fine'] as const;
const DIGITS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] as const;

/** Register names; a program with n lines uses n of them. */
export const REGISTER_NAMES: readonly string[] = [
  'ant bee cat dog elk fox gnu hen ibis jay kiwi lynx mole newt owl pig quail ram seal toad urchin vole wasp yak',
  'ash birch cedar elm fir gum holly ivy larch maple oak pine rose sage teak vine willow yew',
  'amber coal flint gold iron jade lead mica onyx opal pearl ruby silver slate tin topaz zinc',
].flatMap((row) => row.split(' '));

/** A program has one register per line, so at most this many lines. */
export const MAX_LINES = Math.min(LINE_LABELS, REGISTER_NAMES.length);

/** All words, in the order of their ids. */
export const VOCABULARY: readonly string[] = [
  ...SPECIAL_WORDS,
  ...STRUCTURE_WORDS,
  ...FILLER_WORDS,
  ...DIGITS.map((digit) => `${digit}`),
  ...DIGITS.map((digit) => `=${digit}`),
  ...Array.from({ length: MAX_QUERIES }, (_, index) => `Q${index + 1}`),
  ...Array.from({ length: LINE_LABELS }, (_, index) => `L${index + 1}`),
  ...REGISTER_NAMES,
  ...VERBOSE_WORDS,
];

const ids: ReadonlyMap<string, number> = new Map(VOCABULARY.map((word, id) => [word, id]));

/**
 * The id of a word.
 *
 * @throws {RangeError} if the vocabulary does not hold the word.
 */
export function idOf(word: string): number {
  const id = ids.get(word);
  if (id === undefined) throw new RangeError(`"${word}" is not one of the ${VOCABULARY.length} words of crystal-mini`);
  return id;
}

/** Text to ids: words are separated by white space. */
export function encode(text: string): number[] {
  return text.split(/\s+/).filter(Boolean).map(idOf);
}

/**
 * Ids to text.
 *
 * @throws {RangeError} if an id is outside the vocabulary.
 */
export function decode(tokens: readonly number[]): string {
  return tokens
    .map((id) => {
      const word = VOCABULARY[id];
      if (word === undefined)
        throw new RangeError(`token id must be between 0 and ${VOCABULARY.length - 1}, got ${id}`);
      return word;
    })
    .join(' ');
}

/** Ids of the words that the grammar names directly. */
export const TOKEN = Object.freeze({
  pad: idOf('<pad>'),
  bos: idOf('<bos>'),
  eos: idOf('<eos>'),
  system: idOf('<|system|>'),
  verbose: idOf('verbose'),
  user: idOf('<|user|>'),
  assistant: idOf('<|assistant|>'),
  think: idOf('<think>'),
  thinkEnd: idOf('</think>'),
  semicolon: idOf(';'),
  colon: idOf(':'),
  plus: idOf('+'),
  arrow: idOf('->'),
});

const firstDigit = idOf('0');
const firstValue = idOf('=0');
const firstLine = idOf('L1');
const firstQuery = idOf('Q1');
const firstName = idOf(REGISTER_NAMES[0] ?? '');

/** Id of the literal digit `0`..`9`. */
export const digitToken = (digit: number): number => firstDigit + digit;

/** Id of the value word `=0`..`=9`. These occur only in reasoning and answer, never in a prompt. */
export const valueToken = (value: number): number => firstValue + value;

/** Id of the line label `L<number>`, number from 1. */
export const lineToken = (number: number): number => firstLine + number - 1;

/** Id of the query label `Q<number>`, number from 1. */
export const queryToken = (number: number): number => firstQuery + number - 1;

/** Id of the register name with this index in `REGISTER_NAMES`. */
export const nameToken = (index: number): number => firstName + index;
