import { type Member, OPEN_BRACE, OPEN_BRACKET } from './scan.ts';

/**
 * Values as vLLM reads them: pydantic's lax mode takes `"true"`, `1` and `"yes"` for true and `"16"`, `16.0` and `true` for
 * a number (https://docs.pydantic.dev/latest/concepts/conversion_table/). A test holds these against vLLM's own classes.
 */

const TRUE: ReadonlySet<string> = new Set(['1', 't', 'true', 'on', 'y', 'yes']);
const FALSE: ReadonlySet<string> = new Set(['0', 'f', 'false', 'off', 'n', 'no']);
/** No server makes more. */
const MAX_COUNT = 2 ** 40;
/** Longer values are no number, except for zeros and spaces, which only somebody who hides something writes. */
const MAX_BYTES = 256;
/** What pydantic takes for space: that of Unicode, which JavaScript knows but for two. */
const SPACE = /^[\s\x85]+|[\s\x85]+$/gu;
const NO_SPACE = '\ufeff';
const WHOLE = /^[+-]?\d+(?:_\d+)*(?:\.0+)?$/;

/** `unreadable`: a server refuses it, or it is too long to be looked at. */
export type LaxFlag = boolean | 'null' | 'unreadable';

/** A flag; null where the text is `null`. */
export function laxFlag(bytes: Buffer, member: Pick<Member, 'valueStart' | 'end'>): LaxFlag {
  const value = shortValue(bytes, member);
  if (value === null) return 'null';
  if (typeof value === 'boolean') return value;
  if (value === 0 || value === 1) return value === 1;
  if (typeof value !== 'string') return 'unreadable';
  const word = value.toLowerCase();
  return TRUE.has(word) ? true : FALSE.has(word) ? false : 'unreadable';
}

/** A number, at most MAX_COUNT, which it is where it is too long to be looked at; undefined: null, or what a server refuses. */
export function laxCount(bytes: Buffer, member: Pick<Member, 'valueStart' | 'end'>): number | undefined {
  const value = shortValue(bytes, member);
  if (value === TOO_LONG) return MAX_COUNT;
  if (typeof value === 'boolean') return value ? 1 : 0;
  if (typeof value === 'number') return Math.min(value, MAX_COUNT);
  if (typeof value !== 'string' || value.startsWith(NO_SPACE) || value.endsWith(NO_SPACE)) return undefined;
  const digits = value.replaceAll(SPACE, '');
  return WHOLE.test(digits) ? Math.min(Number(digits.replaceAll('_', '')), MAX_COUNT) : undefined;
}

const TOO_LONG = Symbol('too long');

/** A string, number or literal; undefined: an array, an object, or nothing that JSON knows, such as NaN. */
function shortValue(bytes: Buffer, { valueStart, end }: Pick<Member, 'valueStart' | 'end'>): unknown {
  const first = bytes[valueStart];
  if (first === OPEN_BRACE || first === OPEN_BRACKET) return undefined;
  if (end - valueStart > MAX_BYTES) return TOO_LONG;
  try {
    return JSON.parse(bytes.toString('utf8', valueStart, end));
  } catch {
    return undefined;
  }
}
