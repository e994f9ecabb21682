import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { type Decode, IncrementalDecoder } from './incremental-decoder.ts';

export interface ChatMessage {
  role: string;
  content: string;
}

export interface TokenizerOptions {
  /** The words around the chain of thought; each must be one token. */
  thinkStart?: string;
  thinkEnd?: string;
  /** Added to the error about words outside the vocabulary. */
  unknownWordHint?: string;
}

/** Text to token ids and back, for one model. */
export interface ChatTokenizer {
  readonly vocabSize: number;
  /** Undefined: the model has no such token, and everything is `content`. */
  readonly thinkStartId: number | undefined;
  readonly thinkEndId: number | undefined;
  readonly thinkStart: string;
  readonly thinkEnd: string;
  /** Throws UnknownWordsError. */
  encode(text: string, addSpecialTokens: boolean): number[];
  /** Renders the chat template with `variables`. Throws UnknownWordsError, or what the template raises. */
  encodeChat(messages: readonly ChatMessage[], variables: Readonly<Record<string, unknown>>): number[];
  decode(ids: readonly number[], skipSpecialTokens: boolean): string;
  /** One token as text. */
  tokenText(id: number): string;
  /** Decodes a growing sequence; `before` are the tokens before it. */
  createDecoder(skipSpecialTokens: boolean, before?: readonly number[]): IncrementalDecoder;
}

interface Config {
  chat_template?: string | { name: string; template: string }[];
  [key: string]: unknown;
}

/**
 * Reads `tokenizer.json`, `tokenizer_config.json` and the chat template (`chat_template.jinja`, or in the config) of a
 * Hugging Face folder. Throws when one is missing or not valid.
 */
export function loadTokenizer(folder: string, options: TokenizerOptions = {}): ChatTokenizer {
  const config = readJson(join(folder, 'tokenizer_config.json')) as Config;
  const tokenizer = new HuggingFaceTokenizer(readJson(join(folder, 'tokenizer.json')) as object, config);
  const template = new Template(readTemplate(folder, config));
  const { thinkStart = '<think>', thinkEnd = '</think>', unknownWordHint = CRYSTAL_MINI_HINT } = options;
  const special = new Set(
    [...tokenizer.get_added_tokens_decoder()].filter(([, token]) => token.special).map(([id]) => id),
  );
  const unknown = typeof config['unk_token'] === 'string' ? config['unk_token'] : undefined;
  const unknownId = unknown === undefined ? undefined : tokenizer.token_to_id(unknown);

  const encode = (text: string, addSpecialTokens: boolean) => {
    const { ids, tokens } = tokenizer.encode(text, { add_special_tokens: addSpecialTokens });
    const strange = tokens.filter((token: string, i: number) => ids[i] === unknownId && token !== unknown);
    if (strange.length > 0) throw new UnknownWordsError(strange, unknownWordHint);
    return ids;
  };
  const decode = (ids: readonly number[], skipSpecialTokens: boolean) => {
    const kept = skipSpecialTokens ? ids.filter((id) => !special.has(id)) : [...ids];
    return kept.length === 0 ? '' : tokenizer.decode(kept, { clean_up_tokenization_spaces: false });
  };
  const decodeAll: Decode = (ids) => decode(ids, false);
  const decodePlain: Decode = (ids) => decode(ids, true);
  const namedTokens = Object.fromEntries(
    ['bos_token', 'eos_token', 'pad_token', 'unk_token'].map((name) => [name, config[name] ?? null]),
  );

  return {
    vocabSize: tokenizer.get_vocab().size,
    thinkStartId: tokenizer.token_to_id(thinkStart),
    thinkEndId: tokenizer.token_to_id(thinkEnd),
    thinkStart,
    thinkEnd,
    encode,
    encodeChat: (messages, variables) => encode(template.render({ ...namedTokens, ...variables, messages }), false),
    decode,
    tokenText: (id) => decode([id], false),
    createDecoder: (skipSpecialTokens, before) =>
      new IncrementalDecoder(skipSpecialTokens ? decodePlain : decodeAll, before),
  };
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new Error(`cannot read ${path}: ${(cause as Error).message}`);
  }
}

function readTemplate(folder: string, config: Config): string {
  const file = join(folder, 'chat_template.jinja');
  if (existsSync(file)) return readFileSync(file, 'utf8');
  const inConfig = config.chat_template;
  const template = Array.isArray(inConfig) ? inConfig.find(({ name }) => name === 'default')?.template : inConfig;
  if (template === undefined) throw new Error(`${folder} has no chat template`);
  return template;
}

const MAX_WORDS = 3;
const MAX_WORD_LENGTH = 40;

/** Shown when a prompt contains words that crystal-mini does not know. */
const CRYSTAL_MINI_HINT =
  'crystal-mini is a tiny model that knows one task: it runs register programs, whose lines count down to L1 and give ' +
  'a register the sum of two registers or digits, modulo 10, and then answers what was asked. Try the prompt ' +
  '"L3 ant 2 5 : L2 bee ant 1 : L1 cat bee bee : Q1 cat".';

/** Words outside the model's vocabulary, in the order of the prompt. */
export class UnknownWordsError extends Error {
  override readonly name = 'UnknownWordsError';

  constructor(words: readonly string[], hint: string) {
    const distinct = [...new Set(words)];
    const named = distinct.slice(0, MAX_WORDS).map((word) => JSON.stringify(shorten(word)));
    const rest = distinct.length > MAX_WORDS ? ` and ${distinct.length - MAX_WORDS} more` : '';
    const verb = distinct.length === 1 ? 'is not in' : 'are not in';
    super(`${named.join(', ')}${rest} ${verb} the vocabulary of this model. ${hint}`);
  }
}

function shorten(word: string): string {
  return word.length > MAX_WORD_LENGTH ? `${word.slice(0, MAX_WORD_LENGTH)}...` : word;
}
