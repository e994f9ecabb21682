import { laxCount } from '../json/lax.ts';
import {
  BACKSLASH,
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COMMA,
  isDigit,
  lastMember,
  type Member,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
} from '../json/scan.ts';
import type { JsonBody } from './json-body.ts';

/** How much output a request asks for, in tokens for each of its choices. */
export interface WantedOutput {
  /** Undefined: it names no limit. */
  most: number | undefined;
  /** Answers in all: those to each prompt. */
  choices: number;
  prompts: number;
  /** Tokens that its prompts give as numbers. */
  promptIds: number;
}

/** The names of a limit on output. Servers differ in which of two they look at, so that the largest counts. */
const LIMITS = ['max_completion_tokens', 'max_tokens', 'max_output_tokens'];
/** Those that vLLM knows on a path; without one of them there is no limit. On all other paths it is `max_tokens`. */
const KNOWN: Readonly<Record<string, readonly string[]>> = {
  '/v1/chat/completions': ['max_completion_tokens', 'max_tokens'],
  '/v1/responses': ['max_output_tokens'],
};
const KNOWN_ELSEWHERE = ['max_tokens'];
/** A list of these is a batch where its elements are strings or lists: prompts, embeddings of prompts, conversations. */
const BATCHES = ['prompt', 'prompt_embeds', 'messages'];
/** A longer list is not counted to its end, so that a large body does not keep others waiting; it counts as the longest. */
const MAX_BYTES = 1024 * 1024;
/** The longest that vLLM takes, unless VLLM_MAX_COMPLETION_PROMPTS says otherwise. */
const MAX_PROMPTS = 1024;

/** What a body asks for on a path, at least as much as vLLM reads in it. */
export function wantedOutput({ bytes, object }: JsonBody, path: string): WantedOutput {
  const countOf = (name: string) => {
    const member = lastMember(object, name);
    return member === undefined ? undefined : laxCount(bytes, member);
  };
  const isLimited = (KNOWN[path] ?? KNOWN_ELSEWHERE).some((name) => countOf(name) !== undefined);
  const limits = isLimited ? LIMITS.map(countOf).filter((count) => count !== undefined) : [];
  const batches = BATCHES.map((name) => batchOf(bytes, lastMember(object, name)));
  const prompts = Math.max(
    1,
    batches.reduce((sum, batch) => sum + batch.prompts, 0),
  );
  return {
    most: limits.length === 0 ? undefined : Math.ceil(Math.max(0, ...limits)),
    choices: Math.ceil(Math.max(1, countOf('n') ?? 1)) * prompts,
    prompts,
    promptIds: batches.reduce((sum, batch) => sum + batch.ids, 0),
  };
}

/**
 * How many prompts a member holds, at least, and how many numbers, which are tokens: a list of them is one prompt. The body
 * is valid JSON.
 */
function batchOf(bytes: Buffer, member: Member | undefined): { prompts: number; ids: number } {
  if (member === undefined) return { prompts: 0, ids: 0 };
  const { valueStart, end } = member;
  if (bytes[valueStart] !== OPEN_BRACKET) return { prompts: bytes[valueStart] === QUOTE ? 1 : 0, ids: 0 };
  const last = Math.min(end, valueStart + MAX_BYTES);
  let prompts = 1;
  let lists = false;
  let ids = 0;
  let depth = 0;
  for (let at = valueStart; at < last; at++) {
    const byte = bytes[at] as number;
    if (byte === QUOTE) {
      at = stringEnd(bytes, at, last);
      if (depth === 1) lists = true;
    } else if (byte === OPEN_BRACKET || byte === OPEN_BRACE) {
      depth++;
      if (depth === 2 && byte === OPEN_BRACKET) lists = true;
      // Messages of a conversation.
      if (depth === 2 && byte === OPEN_BRACE) return { prompts: 1, ids: 0 };
    } else if (byte === CLOSE_BRACKET || byte === CLOSE_BRACE) depth--;
    else if (byte === COMMA && depth === 1 && lists) prompts++;
    else if (isDigit(byte) && !isDigit(bytes[at - 1] as number)) ids++;
  }
  if (last < end) ids += ids === 0 ? 0 : Math.ceil((end - last) / 2);
  return { prompts: last < end && lists ? Math.max(prompts, MAX_PROMPTS) : prompts, ids };
}

/** The closing quote of the string that begins at `start`, or `last`. */
function stringEnd(bytes: Buffer, start: number, last: number): number {
  let at = start + 1;
  for (; at < last && bytes[at] !== QUOTE; at++) if (bytes[at] === BACKSLASH) at++;
  return at;
}
