import {
  JsonSyntaxError,
  lastMember,
  type Member,
  type ObjectRange,
  OPEN_BRACE,
  OPEN_BRACKET,
  scanDocument,
  scanElements,
  scanObject,
} from '../json/scan.ts';

/** Tokens that a response says it took. */
export interface Usage {
  input: number;
  output: number;
}

/** The bytes of a `usage` object inside of a response or an event. */
export interface FoundUsage {
  tokens: Usage | undefined;
  object: ObjectRange;
  /** The document, at its top. */
  document: ObjectRange;
  /** What it is a member of: the document, or its `response` or `message`. */
  of: 'document' | 'response' | 'message';
  /** Its event is the one that a stream of completions ends with when usage was asked for: `choices` is empty. */
  alone: boolean;
  /** The first of its choices; undefined: it has none, as at the end. */
  choice: number | undefined;
}

/** Of the messages API, beside `input_tokens`. */
const CACHED = ['cache_read_input_tokens', 'cache_creation_input_tokens'];
/** Objects that hold the usage of the responses and the messages API. */
const WRAPPERS = ['response', 'message'] as const;

/**
 * The usage that a JSON document holds: at its top, or in its `response` or `message`. Undefined when there is none, when
 * it is null, and when the bytes are no JSON object.
 */
export function findUsage(json: Buffer): FoundUsage | undefined {
  try {
    const top = scanDocument(json);
    const choices = lastMember(top, 'choices');
    const shared = { document: top, alone: isEmptyArray(json, choices), choice: firstChoice(json, choices) };
    const direct = usageOf(json, top);
    if (direct !== undefined) return { tokens: readTokens(json, direct), object: direct, of: 'document', ...shared };
    for (const of of WRAPPERS) {
      const wrapper = lastMember(top, of);
      if (wrapper === undefined || json[wrapper.valueStart] !== OPEN_BRACE) continue;
      const object = usageOf(json, scanObject(json, wrapper.valueStart));
      if (object !== undefined) return { tokens: readTokens(json, object), object, of, ...shared };
    }
    return undefined;
  } catch (error) {
    if (error instanceof JsonSyntaxError) return undefined;
    throw error;
  }
}

function usageOf(json: Buffer, object: ObjectRange): ObjectRange | undefined {
  const found = lastMember(object, 'usage');
  return found !== undefined && json[found.valueStart] === OPEN_BRACE ? scanObject(json, found.valueStart) : undefined;
}

/**
 * Both names of each: those of completions and embeddings, and those of responses and messages. In messages what is in a
 * cache is not part of `input_tokens`.
 */
function readTokens(json: Buffer, object: ObjectRange): Usage | undefined {
  const fresh = count(json, object, 'prompt_tokens') ?? count(json, object, 'input_tokens');
  const cached = CACHED.reduce((sum, key) => sum + (count(json, object, key) ?? 0), 0);
  const input = fresh === undefined && cached === 0 ? undefined : (fresh ?? 0) + cached;
  const output = count(json, object, 'completion_tokens') ?? count(json, object, 'output_tokens');
  if (input === undefined && output === undefined) return undefined;
  return { input: input ?? 0, output: output ?? 0 };
}

function count(json: Buffer, object: ObjectRange, key: string): number | undefined {
  const found = lastMember(object, key);
  if (found === undefined) return undefined;
  const text = json.toString('latin1', found.valueStart, found.end);
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function isEmptyArray(json: Buffer, found: Member | undefined): boolean {
  return (
    found !== undefined &&
    /^\[\s*\]$/.test(json.toString('latin1', found.valueStart, Math.min(found.end, found.valueStart + 64)))
  );
}

/** The index of the first choice; 0 where it has none. Undefined: there are no choices. */
function firstChoice(json: Buffer, choices: Member | undefined): number | undefined {
  if (choices === undefined || json[choices.valueStart] !== OPEN_BRACKET) return undefined;
  for (const { start } of scanElements(json, choices.valueStart)) {
    return json[start] === OPEN_BRACE ? (count(json, scanObject(json, start), 'index') ?? 0) : 0;
  }
  return undefined;
}
