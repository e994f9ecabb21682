import { CLOSE_BRACE, CLOSE_BRACKET, COLON, COMMA, isDigit, OPEN_BRACE, QUOTE } from '../json/scan.ts';
import { LF } from './events.ts';

/** Where an event says how much its stream took so far. */
export interface RunningUsage {
  choice: number;
  /** The offset of the comma before the member `usage`. */
  start: number;
  /** The offset after the member. */
  end: number;
}

const MEMBER = Buffer.from(',"usage":');
const CHOICE = Buffer.from('"choices":[{"index":');
/** A usage has some 80 bytes; what comes before the index of a choice, some 200. */
const MAX_USAGE_BYTES = 512;
const MAX_HEAD_BYTES = 1024;

/**
 * The usage with which vLLM ends each event of a choice, where `bytes` from `from` to `to` are one event, found from its end:
 * there is one for each token, and the rest need not be read. Undefined: the event is something else, or has to be read.
 * Only an object of plain numbers as the last member of a document behind an array of objects is found, and in valid JSON
 * nothing else can end like this.
 */
export function runningUsage(bytes: Buffer, from: number, to: number): RunningUsage | undefined {
  if (bytes[to - 1] !== LF || bytes[to - 2] !== LF) return undefined;
  if (bytes[to - 3] !== CLOSE_BRACE || bytes[to - 4] !== CLOSE_BRACE) return undefined;
  const least = Math.max(from + MEMBER.length + 1, to - MAX_USAGE_BYTES);
  let at = to - 5;
  for (let after = CLOSE_BRACE; bytes[at] !== OPEN_BRACE; at--) {
    const byte = bytes[at] as number;
    // A value begins with a digit, so that no string, no null and nothing nested is one.
    if (at <= least || !isPlain(byte) || (byte === COLON && !isDigit(after))) return undefined;
    after = byte;
  }
  const start = at - MEMBER.length;
  for (let index = 0; index < MEMBER.length; index++) if (bytes[start + index] !== MEMBER[index]) return undefined;
  if (bytes[start - 1] !== CLOSE_BRACKET || bytes[start - 2] !== CLOSE_BRACE) return undefined;
  const choice = choiceOf(bytes, from, start);
  return choice === undefined ? undefined : { choice, start, end: to - 3 };
}

/** The index of the first choice. */
function choiceOf(bytes: Buffer, from: number, to: number): number | undefined {
  const found = bytes.indexOf(CHOICE, from);
  if (found === -1 || found > Math.min(to, from + MAX_HEAD_BYTES)) return undefined;
  let at = found + CHOICE.length;
  let choice = 0;
  for (; isDigit(bytes[at] as number); at++) choice = choice * 10 + (bytes[at] as number) - 0x30;
  return at === found + CHOICE.length || choice > Number.MAX_SAFE_INTEGER ? undefined : choice;
}

/** Of a member of plain numbers in lower case, without spaces. */
function isPlain(byte: number): boolean {
  return (
    isDigit(byte) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    byte === 0x5f ||
    byte === QUOTE ||
    byte === COMMA ||
    byte === COLON
  );
}
