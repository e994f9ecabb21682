import { laxFlag } from '../json/lax.ts';
import { lastMember, type ObjectRange, OPEN_BRACE } from '../json/scan.ts';
import { type Edit, insertion } from '../json/splice.ts';
import { type JsonBody, STREAM_OPTIONS as OPTIONS } from './json-body.ts';

const TOTAL = 'include_usage';
/** In every event: who leaves early is then known to the token. */
const CONTINUOUS = 'continuous_usage_stats';
const BOTH = `{"${TOTAL}":true,"${CONTINUOUS}":true}`;

/** Where in a stream its client sees the usage. */
export type UsageShown = 'always' | 'last' | 'never';

/** How the body changes, and what of the answer is for the client. */
export interface ForcedUsage {
  edits: readonly Edit[];
  shown: UsageShown;
}

export const NOT_FORCED: ForcedUsage = { edits: [], shown: 'always' };

/**
 * Edits that make a stream of completions tell its usage in each event and at its end. None where the client sent something
 * that is for the backend to refuse. The body must ask for a stream.
 */
export function forceUsage(json: JsonBody): ForcedUsage {
  const { bytes, object } = json;
  const options = lastMember(object, OPTIONS);
  if (options === undefined) {
    return { edits: [insertion(object, `"${OPTIONS}":${BOTH}`, object.members.length)], shown: 'never' };
  }
  const { valueStart, end } = options;
  if (laxFlag(bytes, options) === 'null') return { edits: [{ start: valueStart, end, text: BOTH }], shown: 'never' };
  if (bytes[valueStart] !== OPEN_BRACE) return NOT_FORCED;
  const inner = json.objectOf(options);
  const total = flagOf(bytes, inner, TOTAL);
  const continuous = flagOf(bytes, inner, CONTINUOUS);
  if (total.set === 'unreadable' || continuous.set === 'unreadable') return NOT_FORCED;
  const edits = [total, continuous].flatMap(({ edit }) => edit ?? []);
  const missing = [total, continuous].filter(({ set, edit }) => !set && edit === undefined);
  if (missing.length > 0) {
    edits.unshift(insertion(inner, missing.map(({ name }) => `"${name}":true`).join(','), inner.members.length));
  }
  return { edits, shown: total.set ? (continuous.set ? 'always' : 'last') : 'never' };
}

/** Whether an option is set, and the edit that sets it where it is there and is not. */
function flagOf(bytes: Buffer, options: ObjectRange, name: string) {
  const member = lastMember(options, name);
  const flag = member === undefined ? false : laxFlag(bytes, member);
  const set = flag === 'null' ? false : flag;
  const edit: Edit | undefined =
    member !== undefined && set === false ? { start: member.valueStart, end: member.end, text: 'true' } : undefined;
  return { name, set, edit };
}
