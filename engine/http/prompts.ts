import type { EngineInfo } from '../types.ts';
import { ApiError } from './errors.ts';
import { UnknownWordsError } from './tokenizer.ts';

export interface Prompt {
  text: string;
  ids: readonly number[];
}

/** Encodes a prompt. An unknown word or an error of the chat template becomes an `invalid` ApiError. */
export function encodePrompt(field: string, encode: () => number[]): number[] {
  try {
    return encode();
  } catch (error) {
    if (error instanceof UnknownWordsError) throw new ApiError('invalid', error.message, field);
    throw new ApiError('invalid', `${field} cannot be rendered: ${(error as Error).message}`, field);
  }
}

/** Throws an `invalid` ApiError when a prompt is empty or contains an id outside the vocabulary. */
export function checkPrompt(field: string, ids: readonly number[], info: EngineInfo): void {
  if (ids.length === 0) throw new ApiError('invalid', `${field} is empty: it must have at least 1 token`, field);
  checkTokenIds(field, ids, info);
}

/** Throws an `invalid` ApiError that names the first id outside the vocabulary. */
export function checkTokenIds(field: string, ids: readonly number[], info: EngineInfo): void {
  const strange = ids.find((id) => id < 0 || id >= info.vocabSize);
  if (strange === undefined) return;
  const bounds = `token ids go from 0 to ${info.vocabSize - 1}`;
  throw new ApiError('invalid', `${field} holds the token id ${strange}, which is out of vocabulary: ${bounds}`, field);
}
