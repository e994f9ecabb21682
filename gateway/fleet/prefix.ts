import { hash } from 'node:crypto';
import { lastMember, type ObjectRange, OPEN_BRACE, OPEN_BRACKET, scanElements, scanObject } from '../json/scan.ts';

/** Members that hold a conversation: chat and Anthropic messages, text completions, Responses. */
const CONVERSATION: readonly string[] = ['messages', 'prompt', 'input'];
/** Members that come before it for the model. */
const PREAMBLE: readonly string[] = ['model', 'system', 'instructions'];
/** The first user message is among so many, or is not looked for. */
const MAX_MESSAGES = 16;

/**
 * A hash of what the turns of a conversation have in common, from its bytes: the messages up to the first of the user's,
 * of a text the beginning; at most `most` bytes, so that long system prompts which are the same count as the same.
 * Undefined when the body holds no conversation.
 */
export function prefixHash(json: Buffer, object: ObjectRange, most: number): number | undefined {
  const parts: Buffer[] = [];
  let left = most;
  const take = (start: number, end: number) => {
    const part = json.subarray(start, Math.min(end, start + left));
    parts.push(part);
    left -= part.length;
  };
  for (const { key, valueStart, end } of object.members) if (PREAMBLE.includes(key)) take(valueStart, end);
  const conversation = object.members.findLast(({ key }) => CONVERSATION.includes(key));
  if (conversation === undefined) return undefined;
  const { valueStart, end } = conversation;
  // Without the closing quote or bracket, which the next turn has further on.
  if (json[valueStart] === OPEN_BRACKET) take(valueStart + 1, firstUserMessageEnd(json, valueStart));
  else take(valueStart, end - 1);
  return Number.parseInt(hash('sha1', Buffer.concat(parts)).slice(0, 8), 16);
}

/** The end of the first message of the user's; of the last that was looked at when there is none. */
function firstUserMessageEnd(json: Buffer, start: number): number {
  let last = start + 1;
  let looked = 0;
  for (const element of scanElements(json, start)) {
    last = element.end;
    if (++looked === MAX_MESSAGES || json[element.start] !== OPEN_BRACE) break;
    const role = lastMember(scanObject(json, element.start), 'role');
    if (role !== undefined && json.toString('latin1', role.valueStart, role.end) === '"user"') break;
  }
  return last;
}
