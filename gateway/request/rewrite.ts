import { type Member, type ObjectRange, OPEN_BRACE } from '../json/scan.ts';
import { type Edit, insertion, removal } from '../json/splice.ts';
import { type JsonBody, XARGS } from './json-body.ts';

/** The member that a client sets; it never reaches a backend. */
export const OPTION = 'crystal_kv';
/** Keys of that dictionary which only the gateway may set. */
const RESERVED = 'crystalkv_';

/**
 * Edits that make the body for the backend: without `crystal_kv`, without the client's own `crystalkv_*` keys in `vllm_xargs`, and with
 * `keys` in `vllm_xargs`, which is made when it is absent or null; `model` takes the place of the client's, and
 * `more` edits are made. All other bytes are the same.
 *
 * A `vllm_xargs` of another type stays as it is and gets no keys, for the backend to refuse (`added` is false then). Of
 * duplicate dictionaries the last gets the keys; the reserved keys leave all of them.
 */
export function rewrite(
  json: JsonBody,
  keys: Readonly<Record<string, string | number>>,
  model?: string,
  more: readonly Edit[] = [],
): { edits: Edit[]; added: boolean } {
  const { object } = json;
  const { edits, kept } = removal(object, (member) => member.key === OPTION);
  edits.push(...more);
  if (model !== undefined) edits.push(...modelEdits(object, model));
  const text = JSON.stringify(keys).slice(1, -1);
  let added = text !== '';
  const dictionaries = object.members.filter((member) => member.key === XARGS);
  const last = dictionaries.at(-1);
  for (const member of dictionaries) {
    const wanted = member === last ? text : '';
    const change = dictionaryEdits(json, member, wanted);
    edits.push(...change);
    if (wanted !== '' && change.length === 0) added = false;
  }
  if (last === undefined && added) edits.unshift(insertion(object, `"${XARGS}":{${text}}`, kept));
  return { edits, added };
}

/** Edits that put another model into a body. Of duplicates all are changed, so that every reader finds the same. */
export function modelEdits(object: ObjectRange, model: string): Edit[] {
  const members = object.members.filter(({ key }) => key === 'model');
  return members.map(({ valueStart, end }) => ({ start: valueStart, end, text: JSON.stringify(model) }));
}

function dictionaryEdits(json: JsonBody, member: Member, text: string): Edit[] {
  const { bytes } = json;
  if (bytes[member.valueStart] === OPEN_BRACE) {
    const dictionary = json.objectOf(member);
    const { edits, kept } = removal(dictionary, ({ key }) => key.startsWith(RESERVED));
    return text === '' ? edits : [insertion(dictionary, text, kept), ...edits];
  }
  const { valueStart, end } = member;
  const isNull = end - valueStart === 4 && bytes.toString('latin1', valueStart, end) === 'null';
  return isNull && text !== '' ? [{ start: valueStart, end, text: `{${text}}` }] : [];
}
