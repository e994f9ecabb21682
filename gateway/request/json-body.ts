import { GatewayError } from '../errors.ts';
import { JsonSyntaxError, lastMember, type ObjectRange, scanDocument } from '../json/scan.ts';

/** A request body with the places of its members; everything else is bytes. Of duplicate members the last one counts. */
export class JsonBody {
  readonly bytes: Buffer;
  readonly object: ObjectRange;
  readonly model: string | undefined;
  readonly stream: boolean;

  /** Throws `malformed_json`, which says where. */
  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.object = scan(bytes);
    this.model = this.text('model');
    this.stream = this.value('stream') === true;
  }

  /** The member of that name, parsed; undefined when it is absent. Throws `malformed_json`. */
  value(key: string): unknown {
    const member = lastMember(this.object, key);
    if (member === undefined) return undefined;
    try {
      return JSON.parse(this.bytes.toString('utf8', member.valueStart, member.end));
    } catch {
      throw new GatewayError('malformed_json', {
        message: `the value of ${key} is not valid JSON (${place(this.bytes, member.valueStart)})`,
        param: key,
      });
    }
  }

  /** The member of that name when it is a string. */
  text(key: string): string | undefined {
    const value = this.value(key);
    return typeof value === 'string' ? value : undefined;
  }

  /** The member of that name when it is a whole number of at most 9 digits. */
  count(key: string): number | undefined {
    const member = lastMember(this.object, key);
    if (member === undefined) return undefined;
    const { valueStart, end } = member;
    const text = this.bytes.toString('latin1', valueStart, Math.min(end, valueStart + 12));
    return /^\d{1,9}$/.test(text) ? Number(text) : undefined;
  }
}

function scan(bytes: Buffer): ObjectRange {
  try {
    return scanDocument(bytes);
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    throw new GatewayError('malformed_json', { message: `${error.message} (${place(bytes, error.offset)})` });
  }
}

function place(bytes: Buffer, offset: number): string {
  let line = 1;
  let lineStart = 0;
  for (let at = bytes.indexOf(0x0a); at !== -1 && at < offset; at = bytes.indexOf(0x0a, at + 1)) {
    line++;
    lineStart = at + 1;
  }
  return `byte ${offset}, line ${line}, column ${offset - lineStart + 1}`;
}
