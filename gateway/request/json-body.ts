import { GatewayError } from '../errors.ts';
import { laxFlag } from '../json/lax.ts';
import {
  atOnce,
  documentSteps,
  JsonSyntaxError,
  lastMember,
  type Member,
  type ObjectRange,
  OPEN_BRACE,
  objectSteps,
  QUOTE,
  type Steps,
  scanObject,
} from '../json/scan.ts';
import { inTurns } from '../json/turns.ts';

/** vLLM's dictionary for plug-ins: strings, numbers and lists of them only, hence flat keys. */
export const XARGS = 'vllm_xargs';
export const STREAM_OPTIONS = 'stream_options';
const LOOKED_INTO: ReadonlySet<string> = new Set([XARGS, STREAM_OPTIONS]);
/** Longer values are none that the gateway knows, and are not looked at: what they cost would be the client's choice. */
const MAX_VALUE_BYTES = 8 * 1024;
/** Further on a place has no line: to count the lines of megabytes takes as long as to read them. */
const MAX_LINES_BYTES = 64 * 1024;

/** A request body with the places of its members; everything else is bytes. Of duplicate members the last one counts. */
export class JsonBody {
  readonly bytes: Buffer;
  readonly object: ObjectRange;
  readonly model: string | undefined;
  readonly stream: boolean;

  readonly #inner: ReadonlyMap<Member, ObjectRange>;

  /** Throws `malformed_json`, which says where. */
  constructor(bytes: Buffer, { object, inner }: Scanned = scan(bytes)) {
    this.bytes = bytes;
    this.object = object;
    this.#inner = inner;
    this.model = this.text('model');
    const stream = lastMember(this.object, 'stream');
    this.stream = stream !== undefined && laxFlag(bytes, stream) === true;
  }

  /** The same, with pauses for everything else. Rejects with `malformed_json`. */
  static async inTurns(bytes: Buffer): Promise<JsonBody> {
    return new JsonBody(bytes, await inTurns(scanSteps(bytes)).catch((error: unknown) => refuse(bytes, error)));
  }

  /** The object that is the value of one of this body's members. */
  objectOf(member: Member): ObjectRange {
    return this.#inner.get(member) ?? scanObject(this.bytes, member.valueStart);
  }

  /** The member of that name, parsed; undefined when it is absent. Throws `malformed_json`, also when it is long. */
  value(key: string): unknown {
    const member = lastMember(this.object, key);
    if (member === undefined) return undefined;
    const length = member.end - member.valueStart;
    if (length > MAX_VALUE_BYTES) {
      throw new GatewayError('malformed_json', {
        message: `the value of ${key} has ${length} bytes; the maximum is ${MAX_VALUE_BYTES}`,
        param: key,
      });
    }
    try {
      return JSON.parse(this.bytes.toString('utf8', member.valueStart, member.end));
    } catch {
      throw new GatewayError('malformed_json', {
        message: `the value of ${key} is not valid JSON (${place(this.bytes, member.valueStart)})`,
        param: key,
      });
    }
  }

  /** The member of that name when it is a string, of at most 8 KiB. Throws `malformed_json`. */
  text(key: string): string | undefined {
    const member = lastMember(this.object, key);
    if (member === undefined || !this.isText(key) || member.end - member.valueStart > MAX_VALUE_BYTES) return undefined;
    return this.value(key) as string;
  }

  /** Whether the member of that name is a string, however long. */
  isText(key: string): boolean {
    const member = lastMember(this.object, key);
    return member !== undefined && this.bytes[member.valueStart] === QUOTE;
  }
}

/** A body, and of its members the objects that are looked into. */
interface Scanned {
  object: ObjectRange;
  inner: ReadonlyMap<Member, ObjectRange>;
}

function* scanSteps(bytes: Buffer): Steps<Scanned> {
  const object = yield* documentSteps(bytes);
  const looked = object.members.filter(
    ({ key, valueStart }) => LOOKED_INTO.has(key) && bytes[valueStart] === OPEN_BRACE,
  );
  const [, , , , tooMany] = looked;
  if (tooMany !== undefined) throw new JsonSyntaxError(`the body has ${tooMany.key} too often`, tooMany.start);
  const inner = new Map<Member, ObjectRange>();
  for (const member of looked) inner.set(member, yield* objectSteps(bytes, member.valueStart));
  return { object, inner };
}

function scan(bytes: Buffer): Scanned {
  try {
    return atOnce(scanSteps(bytes));
  } catch (error) {
    return refuse(bytes, error);
  }
}

function refuse(bytes: Buffer, error: unknown): never {
  if (!(error instanceof JsonSyntaxError)) throw error;
  throw new GatewayError('malformed_json', { message: `${error.message} (${place(bytes, error.offset)})` });
}

function place(bytes: Buffer, offset: number): string {
  if (offset > MAX_LINES_BYTES) return `byte ${offset}`;
  let line = 1;
  let lineStart = 0;
  for (let at = bytes.indexOf(0x0a); at !== -1 && at < offset; at = bytes.indexOf(0x0a, at + 1)) {
    line++;
    lineStart = at + 1;
  }
  return `byte ${offset}, line ${line}, column ${offset - lineStart + 1}`;
}
