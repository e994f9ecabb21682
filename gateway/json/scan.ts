/**
 * Finds the members of a JSON object in its bytes, in one pass and without building a value. A prompt of megabytes is
 * walked over, not parsed.
 *
 * The structure is checked to the last byte, so that no reader further on can see other members than we did. The inside
 * of strings is left to the backend: a bad escape there cannot move a boundary. NaN and Infinity pass, since Python's
 * reader takes them.
 */

/** One member. Offsets are bytes of the scanned buffer, ends exclusive. */
export interface Member {
  /** Decoded: escapes such as \u0061 are resolved. */
  key: string;
  /** The opening quote of the key. */
  start: number;
  valueStart: number;
  end: number;
}

/** An object; `start` is its opening brace, `end` the byte after its closing one. Duplicate keys are all listed. */
export interface ObjectRange {
  start: number;
  end: number;
  members: Member[];
}

/** The bytes are not what JSON allows; `offset` is the byte at which reading stopped. */
export class JsonSyntaxError extends Error {
  override readonly name = 'JsonSyntaxError';
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message);
    this.offset = offset;
  }
}

export const MAX_DEPTH = 1000;
export const MAX_MEMBERS = 10_000;

export const QUOTE = 0x22;
export const BACKSLASH = 0x5c;
export const OPEN_BRACE = 0x7b;
export const CLOSE_BRACE = 0x7d;
export const OPEN_BRACKET = 0x5b;
export const CLOSE_BRACKET = 0x5d;
const COMMA = 0x2c;
const COLON = 0x3a;
const ZERO = 0x30;
const NINE = 0x39;
const SCALAR = /^(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|NaN|-?Infinity)$/;
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);
/**
 * Bytes that a loop looks at before a native search takes over: the loop is quicker for short strings and for text full
 * of escaped quotes, the search for images.
 */
const STRIDE = 256;

/** A whole document that has to be one object. Throws JsonSyntaxError. */
export function scanDocument(json: Buffer): ObjectRange {
  const marked = json.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK);
  const start = skipSpace(json, marked ? BYTE_ORDER_MARK.length : 0);
  if (start === json.length) throw new JsonSyntaxError('the body is empty', start);
  if (json[start] !== OPEN_BRACE) throw new JsonSyntaxError('the body must be a JSON object', start);
  const object = scanObject(json, start);
  const rest = skipSpace(json, object.end);
  if (rest < json.length) throw new JsonSyntaxError('there is text after the end of the object', rest);
  return object;
}

/** The object whose opening brace is at `start`. Throws JsonSyntaxError. */
export function scanObject(json: Buffer, start: number): ObjectRange {
  const members: Member[] = [];
  let at = skipSpace(json, start + 1);
  if (json[at] === CLOSE_BRACE) return { start, end: at + 1, members };
  for (;;) {
    if (members.length === MAX_MEMBERS) throw new JsonSyntaxError(`an object has more than ${MAX_MEMBERS} members`, at);
    const keyEnd = skipKey(json, at);
    const valueStart = skipColon(json, keyEnd);
    const end = skipValue(json, valueStart);
    members.push({ key: decodeKey(json, at, keyEnd), start: at, valueStart, end });
    at = skipSpace(json, end);
    if (json[at] === CLOSE_BRACE) return { start, end: at + 1, members };
    if (json[at] !== COMMA) throw unexpected(json, at, "',' or '}'");
    at = skipSpace(json, at + 1);
  }
}

/** The member of that name; of duplicates the last counts, as in every common reader. Undefined: there is none. */
export function lastMember(object: ObjectRange, key: string): Member | undefined {
  return object.members.findLast((member) => member.key === key);
}

/** The elements of the array whose opening bracket is at `start`, one after another. Throws JsonSyntaxError. */
export function* scanElements(json: Buffer, start: number): Generator<{ start: number; end: number }> {
  let at = skipSpace(json, start + 1);
  if (json[at] === CLOSE_BRACKET) return;
  for (;;) {
    const end = skipValue(json, at);
    yield { start: at, end };
    at = skipSpace(json, end);
    if (json[at] === CLOSE_BRACKET) return;
    if (json[at] !== COMMA) throw unexpected(json, at, "',' or ']'");
    at = skipSpace(json, at + 1);
  }
}

/** The offset after the value at `at`. A stack instead of recursion: depth is the client's choice. */
function skipValue(json: Buffer, start: number): number {
  const closers: number[] = [];
  let at = start;
  for (;;) {
    const byte = json[at];
    if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      const closer = byte === OPEN_BRACE ? CLOSE_BRACE : CLOSE_BRACKET;
      if (closers.length === MAX_DEPTH) throw new JsonSyntaxError(`nested deeper than ${MAX_DEPTH}`, at);
      at = skipSpace(json, at + 1);
      if (json[at] !== closer) {
        closers.push(closer);
        if (closer === CLOSE_BRACE) at = skipColon(json, skipKey(json, at));
        continue;
      }
      at++;
    } else {
      at = byte === QUOTE ? skipString(json, at) : skipScalar(json, at);
    }
    for (;;) {
      const closer = closers.at(-1);
      if (closer === undefined) return at;
      at = skipSpace(json, at);
      if (json[at] === closer) {
        closers.pop();
        at++;
      } else if (json[at] === COMMA) {
        at = skipSpace(json, at + 1);
        if (closer === CLOSE_BRACE) at = skipColon(json, skipKey(json, at));
        break;
      } else {
        throw unexpected(json, at, `',' or '${String.fromCharCode(closer)}'`);
      }
    }
  }
}

function skipSpace(json: Buffer, start: number): number {
  let at = start;
  while (json[at] === 0x20 || json[at] === 0x0a || json[at] === 0x0d || json[at] === 0x09) at++;
  return at;
}

function skipKey(json: Buffer, at: number): number {
  if (json[at] !== QUOTE) throw unexpected(json, at, 'a key in double quotes');
  return skipString(json, at);
}

function skipColon(json: Buffer, keyEnd: number): number {
  const at = skipSpace(json, keyEnd);
  if (json[at] !== COLON) throw unexpected(json, at, "':'");
  return skipSpace(json, at + 1);
}

function skipString(json: Buffer, start: number): number {
  let at = start + 1;
  for (;;) {
    for (const near = at + STRIDE; at < near; at++) {
      if (json[at] === QUOTE) return at + 1;
      if (json[at] === BACKSLASH) at++;
    }
    const quote = json.indexOf(QUOTE, at);
    if (quote === -1) throw new JsonSyntaxError('a string is not closed', start);
    let backslashes = 0;
    while (quote - backslashes > at && json[quote - backslashes - 1] === BACKSLASH) backslashes++;
    at = quote + 1;
    if (backslashes % 2 === 0) return at;
  }
}

function skipScalar(json: Buffer, start: number): number {
  let at = start;
  while (isDigit(json[at])) at++;
  const plainInteger = at > start && (json[start] !== ZERO || at === start + 1);
  if (plainInteger && !isScalarByte(json[at])) return at;
  while (isScalarByte(json[at])) at++;
  if (!SCALAR.test(json.toString('latin1', start, at))) throw unexpected(json, start, 'a value');
  return at;
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= ZERO && byte <= NINE;
}

/** Letters, digits, sign and point: what numbers and literals are made of. */
function isScalarByte(byte: number | undefined): boolean {
  if (byte === undefined) return false;
  const letter = byte | 0x20;
  return isDigit(byte) || (letter >= 0x61 && letter <= 0x7a) || byte === 0x2b || byte === 0x2d || byte === 0x2e;
}

function decodeKey(json: Buffer, start: number, end: number): string {
  const text = json.toString('utf8', start, end);
  if (!text.includes('\\')) return text.slice(1, -1);
  try {
    return JSON.parse(text) as string;
  } catch {
    throw new JsonSyntaxError('a key has an invalid escape', start);
  }
}

function unexpected(json: Buffer, at: number, wanted: string): JsonSyntaxError {
  const byte = json[at];
  if (byte === undefined) return new JsonSyntaxError(`expected ${wanted}, found the end of the body`, at);
  const shown = byte > 0x20 && byte < 0x7f ? `'${String.fromCharCode(byte)}'` : `byte 0x${byte.toString(16)}`;
  return new JsonSyntaxError(`expected ${wanted}, found ${shown}`, at);
}
