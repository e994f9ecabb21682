import { GatewayError } from '../errors.ts';
import { JsonSyntaxError, type Member, type ObjectRange, scanDocument, scanObject } from '../json/scan.ts';
import { type Edit, insertion, removal, splice } from '../json/splice.ts';

/** The member that a client sets; it never reaches a backend. */
export const OPTION = 'crystal_kv';
/** vLLM's dictionary for plug-ins: strings, numbers and lists of them only, hence flat keys. */
const XARGS = 'vllm_xargs';
/** Keys of that dictionary which only the gateway may set. */
const RESERVED = 'crystalkv_';

/** A request body with the places that matter; everything else is bytes. */
export interface RequestBody {
  bytes: Buffer;
  object: ObjectRange;
  model: string | undefined;
  stream: boolean;
  /** The value of `crystal_kv`; undefined when it is absent or null. */
  option: unknown;
}

/** Reads what the gateway has to know. Throws `malformed_json`, which says where. */
export function readRequestBody(bytes: Buffer): RequestBody {
  let object: ObjectRange;
  try {
    object = scanDocument(bytes);
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    throw new GatewayError('malformed_json', { message: `${error.message} (${place(bytes, error.offset)})` });
  }
  const model = memberValue(bytes, object, 'model');
  return {
    bytes,
    object,
    model: typeof model === 'string' ? model : undefined,
    stream: memberValue(bytes, object, 'stream') === true,
    option: memberValue(bytes, object, OPTION) ?? undefined,
  };
}

/**
 * The body for the backend: without `crystal_kv`, without the client's own `crystalkv_*` keys in `vllm_xargs`, and with
 * `keys` in `vllm_xargs`, which is made when it is absent or null; `model` takes the place of the client's, and
 * `more` edits are made. All other bytes are the same.
 *
 * A `vllm_xargs` of another type stays as it is and gets no keys, for the backend to refuse (`added` is false then). Of
 * duplicate members the last one counts, as in every common reader; the reserved keys leave all of them.
 */
export function rewriteRequestBody(
  body: RequestBody,
  keys: Readonly<Record<string, string | number>>,
  model?: string,
  more: readonly Edit[] = [],
): { bytes: Buffer; added: boolean } {
  const { bytes, object } = body;
  const { edits, kept } = removal(object, (member) => member.key === OPTION);
  edits.push(...more);
  if (model !== undefined) edits.push(...modelEdits(object, model));
  const text = JSON.stringify(keys).slice(1, -1);
  let added = text !== '';
  const dictionaries = object.members.filter((member) => member.key === XARGS);
  const last = dictionaries.at(-1);
  for (const member of dictionaries) {
    const wanted = member === last ? text : '';
    const change = rewriteDictionary(bytes, member, wanted);
    edits.push(...change);
    if (wanted !== '' && change.length === 0) added = false;
  }
  if (last === undefined && added) edits.unshift(insertion(object, `"${XARGS}":{${text}}`, kept));
  return { bytes: splice(bytes, edits), added };
}

/** The body with another model and all other bytes the same. */
export function renameModel({ bytes, object }: RequestBody, model: string): Buffer {
  return splice(bytes, modelEdits(object, model));
}

/** The last member of that name when it is a string. */
export function textMember({ bytes, object }: RequestBody, key: string): string | undefined {
  const value = memberValue(bytes, object, key);
  return typeof value === 'string' ? value : undefined;
}

/** Of duplicates all are changed, so that every reader finds the same. */
function modelEdits(object: ObjectRange, model: string): Edit[] {
  const members = object.members.filter(({ key }) => key === 'model');
  return members.map(({ valueStart, end }) => ({ start: valueStart, end, text: JSON.stringify(model) }));
}

function rewriteDictionary(bytes: Buffer, member: Member, text: string): Edit[] {
  if (bytes[member.valueStart] === 0x7b) {
    const dictionary = scanObject(bytes, member.valueStart);
    const { edits, kept } = removal(dictionary, ({ key }) => key.startsWith(RESERVED));
    return text === '' ? edits : [insertion(dictionary, text, kept), ...edits];
  }
  const isNull = bytes.toString('latin1', member.valueStart, member.end) === 'null';
  return isNull && text !== '' ? [{ start: member.valueStart, end: member.end, text: `{${text}}` }] : [];
}

/** How much output a request asks for, in tokens for each of its choices. */
export interface WantedOutput {
  /** Undefined: it names no limit. */
  most: number | undefined;
  choices: number;
}

/** The names of that limit: of chat completions, of text completions and messages, of responses. */
const OUTPUT_LIMITS = ['max_completion_tokens', 'max_tokens', 'max_output_tokens'];

export function wantedOutput(body: RequestBody): WantedOutput {
  const most = OUTPUT_LIMITS.map((name) => countMember(body, name)).find((count) => count !== undefined);
  return { most, choices: Math.max(1, countMember(body, 'n') ?? 1) };
}

/** The last member of that name when it is a whole number. */
function countMember({ bytes, object }: RequestBody, key: string): number | undefined {
  const member = object.members.findLast((candidate) => candidate.key === key);
  const text =
    member === undefined
      ? ''
      : bytes.toString('latin1', member.valueStart, Math.min(member.end, member.valueStart + 12));
  return /^\d{1,9}$/.test(text) ? Number(text) : undefined;
}

/** The last member of that name, parsed; undefined when it is absent. */
function memberValue(bytes: Buffer, object: ObjectRange, key: string): unknown {
  const member = object.members.findLast((candidate) => candidate.key === key);
  if (member === undefined) return undefined;
  try {
    return JSON.parse(bytes.toString('utf8', member.valueStart, member.end));
  } catch {
    throw new GatewayError('malformed_json', {
      message: `the value of ${key} is not valid JSON (${place(bytes, member.valueStart)})`,
      param: key,
    });
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
