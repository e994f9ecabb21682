import type { Encode } from './engine.ts';

/**
 * The tokens of a text that an answer follows. A tokenizer may cut line ends in another way when nothing comes after them:
 * hence a letter, where the tokenizer has one.
 *
 * @throws what `encode` throws for a text with words that it does not know
 */
export function encodeBeforeText(text: string, encode: Encode): number[] {
  const letter = tryToEncode('A', encode);
  return letter?.length === 1 ? encode(`${text}A`).slice(0, -1) : encode(text);
}

function tryToEncode(text: string, encode: Encode): number[] | undefined {
  try {
    return encode(text);
  } catch {
    return undefined;
  }
}
