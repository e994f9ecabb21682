import {
  JsonSyntaxError,
  lastMember,
  type Member,
  type ObjectRange,
  OPEN_BRACE,
  scanDocument,
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
  /** What it is a member of: the document, or its `response` or `message`. */
  of: 'document' | 'response' | 'message';
  /** Its event is the one that a stream of completions ends with when usage was asked for: `choices` is empty. */
  alone: boolean;
}

/** Objects that hold the usage of the responses and the messages API. */
const WRAPPERS = ['response', 'message'] as const;

/**
 * The usage that a JSON document holds: at its top, or in its `response` or `message`. Undefined when there is none, when
 * it is null, and when the bytes are no JSON object.
 */
export function findUsage(json: Buffer): FoundUsage | undefined {
  try {
    const top = scanDocument(json);
    const alone = isEmptyArray(json, lastMember(top, 'choices'));
    const direct = usageOf(json, top);
    if (direct !== undefined) return { tokens: readTokens(json, direct), object: direct, of: 'document', alone };
    for (const of of WRAPPERS) {
      const wrapper = lastMember(top, of);
      if (wrapper === undefined || json[wrapper.valueStart] !== OPEN_BRACE) continue;
      const object = usageOf(json, scanObject(json, wrapper.valueStart));
      if (object !== undefined) return { tokens: readTokens(json, object), object, of, alone };
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

/** Both names of each: those of completions and embeddings, and those of responses and messages. */
function readTokens(json: Buffer, object: ObjectRange): Usage | undefined {
  const input = count(json, object, 'prompt_tokens') ?? count(json, object, 'input_tokens');
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
