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

/**
 * Reads a bit further each time it is asked: a body of tens of megabytes must not keep all others waiting. Each step is
 * work for about a millisecond, whatever the bytes are.
 */
export type Steps<T> = Generator<undefined, T, undefined>;

/** All steps without a pause. */
export function atOnce<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
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
export const COMMA = 0x2c;
export const COLON = 0x3a;
const ZERO = 0x30;
const NINE = 0x39;
const SCALAR = /^(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|NaN|-?Infinity)$/;
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);
/** Python refuses whole numbers of more than 4300 digits. */
const MAX_SCALAR_BYTES = 4300;
const MAX_KEY_BYTES = 1024;
const WHOLE_ESCAPES = /^(?:[^\\]|\\u[0-9a-fA-F]{4}|\\[^u])*/;
const KEY = 'a key in double quotes';
/**
 * Bytes that a loop looks at before a native search takes over: the loop is quicker for short strings and for text full
 * of escaped quotes, the search for images.
 */
const STRIDE = 256;
/** Bytes of a step in which a loop looks at each, and bytes of one native search. */
export const STEP_BYTES = 128 * 1024;
const SEARCH_BYTES = 64 * 1024;

/** A whole document that has to be one object. Throws JsonSyntaxError. */
export function scanDocument(json: Buffer): ObjectRange {
  return atOnce(documentSteps(json));
}

/** The object whose opening brace is at `start`. Throws JsonSyntaxError. */
export function scanObject(json: Buffer, start: number): ObjectRange {
  return atOnce(objectSteps(json, start));
}

/** The same as `scanDocument`, in steps. */
export function* documentSteps(json: Buffer): Steps<ObjectRange> {
  const marked = json.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK);
  const start = yield* skipSpace(json, marked ? BYTE_ORDER_MARK.length : 0);
  if (start === json.length) throw new JsonSyntaxError('the body is empty', start);
  if (json[start] !== OPEN_BRACE) throw new JsonSyntaxError('the body must be a JSON object', start);
  const object = yield* objectSteps(json, start);
  const rest = yield* skipSpace(json, object.end);
  if (rest < json.length) throw new JsonSyntaxError('there is text after the end of the object', rest);
  return object;
}

/** The same as `scanObject`, in steps. */
export function* objectSteps(json: Buffer, start: number): Steps<ObjectRange> {
  const members: Member[] = [];
  let at = spaceEnd(json, start + 1) ?? (yield* skipSpace(json, start + 1));
  if (json[at] === CLOSE_BRACE) return { start, end: at + 1, members };
  let pause = at + STEP_BYTES;
  for (;;) {
    if (at >= pause) {
      pause = at + STEP_BYTES;
      yield;
    }
    if (members.length === MAX_MEMBERS) throw new JsonSyntaxError(`an object has more than ${MAX_MEMBERS} members`, at);
    if (json[at] !== QUOTE) throw unexpected(json, at, KEY);
    const keyEnd = stringEnd(json, at) ?? (yield* skipString(json, at));
    const valueStart = colonEnd(json, keyEnd) ?? (yield* skipColon(json, keyEnd));
    const end = yield* skipValue(json, valueStart);
    members.push({ key: decodeKey(json, at, keyEnd), start: at, valueStart, end });
    at = spaceEnd(json, end) ?? (yield* skipSpace(json, end));
    if (json[at] === CLOSE_BRACE) return { start, end: at + 1, members };
    if (json[at] !== COMMA) throw unexpected(json, at, "',' or '}'");
    at = spaceEnd(json, at + 1) ?? (yield* skipSpace(json, at + 1));
  }
}

/** The member of that name; of duplicates the last counts, as in every common reader. Undefined: there is none. */
export function lastMember(object: ObjectRange, key: string): Member | undefined {
  return object.members.findLast((member) => member.key === key);
}

/** The elements of the array whose opening bracket is at `start`, one after another. Throws JsonSyntaxError. */
export function* scanElements(json: Buffer, start: number): Generator<{ start: number; end: number }> {
  let at = atOnce(skipSpace(json, start + 1));
  if (json[at] === CLOSE_BRACKET) return;
  for (;;) {
    const end = atOnce(skipValue(json, at));
    yield { start: at, end };
    at = atOnce(skipSpace(json, end));
    if (json[at] === CLOSE_BRACKET) return;
    if (json[at] !== COMMA) throw unexpected(json, at, "',' or ']'");
    at = atOnce(skipSpace(json, at + 1));
  }
}

/** The offset after the value at `at`. A stack instead of recursion: depth is the client's choice. */
function* skipValue(json: Buffer, start: number): Steps<number> {
  const closers: number[] = [];
  let at = start;
  let pause = start + STEP_BYTES;
  for (;;) {
    if (at >= pause) {
      pause = at + STEP_BYTES;
      yield;
    }
    const byte = json[at];
    if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      const closer = byte === OPEN_BRACE ? CLOSE_BRACE : CLOSE_BRACKET;
      if (closers.length === MAX_DEPTH) throw new JsonSyntaxError(`nested deeper than ${MAX_DEPTH}`, at);
      at = spaceEnd(json, at + 1) ?? (yield* skipSpace(json, at + 1));
      if (json[at] !== closer) {
        closers.push(closer);
        if (closer === CLOSE_BRACE) at = keyEnd(json, at) ?? (yield* skipKey(json, at));
        continue;
      }
      at++;
    } else {
      at = byte === QUOTE ? (stringEnd(json, at) ?? (yield* skipString(json, at))) : skipScalar(json, at);
    }
    for (;;) {
      const closer = closers.at(-1);
      if (closer === undefined) return at;
      at = spaceEnd(json, at) ?? (yield* skipSpace(json, at));
      if (json[at] === closer) {
        closers.pop();
        at++;
      } else if (json[at] === COMMA) {
        at = spaceEnd(json, at + 1) ?? (yield* skipSpace(json, at + 1));
        if (closer === CLOSE_BRACE) at = keyEnd(json, at) ?? (yield* skipKey(json, at));
        break;
      } else {
        throw unexpected(json, at, `',' or '${String.fromCharCode(closer)}'`);
      }
    }
  }
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

/*
 * Of each piece of syntax there is a function for short ones, which gives undefined for the others, and one in steps: a
 * generator for each string and each space would cost more than the strings.
 */

function spaceEnd(json: Buffer, start: number): number | undefined {
  let at = start;
  for (const near = start + STRIDE; at < near; at++) if (!isSpace(json[at])) return at;
  return undefined;
}

function* skipSpace(json: Buffer, start: number): Steps<number> {
  let at = start;
  for (;;) {
    for (const pause = at + STEP_BYTES; at < pause; at++) if (!isSpace(json[at])) return at;
    yield;
  }
}

/** From the opening quote of a key to the value. */
function keyEnd(json: Buffer, at: number): number | undefined {
  if (json[at] !== QUOTE) throw unexpected(json, at, KEY);
  const end = stringEnd(json, at);
  return end === undefined ? undefined : colonEnd(json, end);
}

function* skipKey(json: Buffer, at: number): Steps<number> {
  return yield* skipColon(json, yield* skipString(json, at));
}

function colonEnd(json: Buffer, end: number): number | undefined {
  const at = spaceEnd(json, end);
  if (at === undefined) return undefined;
  if (json[at] !== COLON) throw unexpected(json, at, "':'");
  return spaceEnd(json, at + 1);
}

function* skipColon(json: Buffer, end: number): Steps<number> {
  const at = yield* skipSpace(json, end);
  if (json[at] !== COLON) throw unexpected(json, at, "':'");
  return yield* skipSpace(json, at + 1);
}

function stringEnd(json: Buffer, start: number): number | undefined {
  for (let at = start + 1, near = at + STRIDE; at < near; at++) {
    if (json[at] === QUOTE) return at + 1;
    if (json[at] === BACKSLASH) at++;
  }
  return undefined;
}

function* skipString(json: Buffer, start: number): Steps<number> {
  let at = start + 1;
  let pause = at + STEP_BYTES;
  for (;;) {
    for (const near = at + STRIDE; at < near; at++) {
      if (json[at] === QUOTE) return at + 1;
      if (json[at] === BACKSLASH) at++;
    }
    if (at >= pause) {
      pause = at + STEP_BYTES;
      yield;
    }
    if (at >= json.length) throw new JsonSyntaxError('a string is not closed', start);
    const near = json.subarray(at, at + SEARCH_BYTES);
    const found = near.indexOf(QUOTE);
    const end = at + (found === -1 ? near.length : found);
    let backslashes = 0;
    while (end - backslashes > at && json[end - backslashes - 1] === BACKSLASH) backslashes++;
    // An escape reaches over the end of what was searched.
    at = end + (backslashes % 2);
    if (found !== -1 && backslashes % 2 === 0) return end + 1;
  }
}

function skipScalar(json: Buffer, start: number): number {
  let at = start;
  while (at - start <= MAX_SCALAR_BYTES && isDigit(json[at])) at++;
  const plainInteger = at > start && (json[start] !== ZERO || at === start + 1);
  if (at - start <= MAX_SCALAR_BYTES && plainInteger && !isScalarByte(json[at])) return at;
  while (at - start <= MAX_SCALAR_BYTES && isScalarByte(json[at])) at++;
  if (at - start > MAX_SCALAR_BYTES)
    throw new JsonSyntaxError(`a number has more than ${MAX_SCALAR_BYTES} characters`, start);
  if (!SCALAR.test(json.toString('latin1', start, at))) throw unexpected(json, start, 'a value');
  return at;
}

export function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= ZERO && byte <= NINE;
}

/** Letters, digits, sign and point: what numbers and literals are made of. */
function isScalarByte(byte: number | undefined): boolean {
  if (byte === undefined) return false;
  const letter = byte | 0x20;
  return isDigit(byte) || (letter >= 0x61 && letter <= 0x7a) || byte === 0x2b || byte === 0x2d || byte === 0x2e;
}

/** Of a long key the beginning, which tells it from every name that is looked for. */
function decodeKey(json: Buffer, start: number, end: number): string {
  if (end - start > MAX_KEY_BYTES) {
    const [whole = ''] = WHOLE_ESCAPES.exec(json.toString('utf8', start + 1, start + MAX_KEY_BYTES)) ?? [];
    return decoded(`"${whole}..."`, start);
  }
  const text = json.toString('utf8', start, end);
  return text.includes('\\') ? decoded(text, start) : text.slice(1, -1);
}

function decoded(text: string, start: number): string {
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
