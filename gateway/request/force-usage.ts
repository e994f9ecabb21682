import { lastMember, OPEN_BRACE } from '../json/scan.ts';
import { type Edit, insertion } from '../json/splice.ts';
import { type JsonBody, STREAM_OPTIONS as OPTIONS } from './json-body.ts';

/**
 * Edits that make a stream of completions end with its usage; undefined where the client asked for that itself, or sent
 * something that is for the backend to judge. `{}` asks in vLLM. The body must ask for a stream.
 */
export function forceUsage(json: JsonBody): Edit[] | undefined {
  const { bytes, object } = json;
  const options = lastMember(object, OPTIONS);
  if (options === undefined) return [insertion(object, `"${OPTIONS}":{"include_usage":true}`, object.members.length)];
  const { valueStart, end } = options;
  if (bytes.toString('latin1', valueStart, Math.min(end, valueStart + 5)) === 'null') {
    return [{ start: valueStart, end, text: '{"include_usage":true}' }];
  }
  if (bytes[valueStart] !== OPEN_BRACE) return undefined;
  const inner = json.objectOf(options);
  const optionOf = (key: string) => {
    const found = lastMember(inner, key);
    return (
      found && { ...found, text: bytes.toString('latin1', found.valueStart, Math.min(found.end, found.valueStart + 6)) }
    );
  };
  const include = optionOf('include_usage');
  if (include === undefined || (include.text !== 'false' && include.text !== 'null')) return undefined;
  const edits: Edit[] = [{ start: include.valueStart, end: include.end, text: 'true' }];
  // Without usage this has no effect; with it, every event would have one.
  const continuous = optionOf('continuous_usage_stats');
  if (continuous !== undefined && continuous.text !== 'null') {
    edits.push({ start: continuous.valueStart, end: continuous.end, text: 'false' });
  }
  return edits;
}
