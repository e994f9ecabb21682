const MOST_WORDS = 3;
const LONGEST_WORD = 40;

/** Said when a prompt holds words that crystal-mini does not know. */
export const CRYSTAL_MINI_HINT =
  'crystal-mini is a tiny model that knows one task: it runs register programs, whose lines count down to L1 and give ' +
  'a register the sum of two registers or digits, modulo 10, and then answers what was asked. Try the prompt ' +
  '"L3 ant 2 5 : L2 bee ant 1 : L1 cat bee bee : Q1 cat".';

/** Words outside the model's vocabulary, in the order of the prompt. */
export class UnknownWordsError extends Error {
  override readonly name = 'UnknownWordsError';

  constructor(words: readonly string[], hint: string) {
    const distinct = [...new Set(words)];
    const named = distinct.slice(0, MOST_WORDS).map((word) => JSON.stringify(shorten(word)));
    const rest = distinct.length > MOST_WORDS ? ` and ${distinct.length - MOST_WORDS} more` : '';
    const verb = distinct.length === 1 ? 'is not in' : 'are not in';
    super(`${named.join(', ')}${rest} ${verb} the vocabulary of this model. ${hint}`);
  }
}

function shorten(word: string): string {
  return word.length > LONGEST_WORD ? `${word.slice(0, LONGEST_WORD)}...` : word;
}
