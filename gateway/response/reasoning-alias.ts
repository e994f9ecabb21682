import {
  JsonSyntaxError,
  lastMember,
  type Member,
  OPEN_BRACE,
  OPEN_BRACKET,
  scanDocument,
  scanElements,
  scanObject,
} from '../json/scan.ts';
import type { Edit } from '../json/splice.ts';

/** What vLLM calls it now, and until early 2026; many clients still read the older name. */
const NAME = 'reasoning';
const ALIAS = 'reasoning_content';
/** Present in all bytes that could need an alias. */
export const REASONING_NEEDLE = Buffer.from(`"${NAME}"`);

/**
 * Edits that put `reasoning_content`, with the same bytes as value, behind each `reasoning` of the messages and deltas of
 * a chat completion or of one of its events. None where it is there already, and none when the bytes are something else.
 */
export function aliasEdits(json: Buffer): Edit[] {
  if (!json.includes(REASONING_NEEDLE)) return [];
  try {
    const choices = lastMember(scanDocument(json), 'choices');
    if (choices === undefined || json[choices.valueStart] !== OPEN_BRACKET) return [];
    return [...scanElements(json, choices.valueStart)]
      .filter(({ start }) => json[start] === OPEN_BRACE)
      .flatMap(({ start }) => {
        const choice = scanObject(json, start);
        return ['message', 'delta'].flatMap((name) => aliasIn(json, lastMember(choice, name)));
      });
  } catch (error) {
    if (error instanceof JsonSyntaxError) return [];
    throw error;
  }
}

function aliasIn(json: Buffer, holder: Member | undefined): Edit[] {
  if (holder === undefined || json[holder.valueStart] !== OPEN_BRACE) return [];
  const object = scanObject(json, holder.valueStart);
  const reasoning = lastMember(object, NAME);
  if (reasoning === undefined || lastMember(object, ALIAS) !== undefined) return [];
  const text = `,"${ALIAS}":${json.toString('utf8', reasoning.valueStart, reasoning.end)}`;
  return [{ start: reasoning.end, end: reasoning.end, text }];
}
