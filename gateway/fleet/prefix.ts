import { createHash, hash } from 'node:crypto';
import {
  JsonSyntaxError,
  lastMember,
  type Member,
  type ObjectRange,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  scanElements,
  scanObject,
} from '../json/scan.ts';

/** Members that hold a conversation: chat and Anthropic messages, text completions, Responses. */
const CONVERSATION: readonly string[] = ['messages', 'prompt', 'input'];
/** Members that come before it for the model. */
const PREAMBLE: readonly string[] = ['model', 'system', 'instructions'];
/** The first user message is among so many, or is not looked for. */
const MAX_MESSAGES = 16;
/** What lies further on is not read: a body may have megabytes before its first user message. */
const MAX_READ_BYTES = 512 * 1024;
/** The text of a block that changes with every request, and that vLLM leaves out of the prompt. */
const VOLATILE = '"x-anthropic-billing-header';
/** Members of a message, or of a block, that are not part of the prompt, or not in every turn. */
const NOT_PROMPT: readonly string[] = ['cache_control', 'id', 'status'];

/** So many bytes of a text: half from its beginning, half from its end. */
interface Bounded {
  add(bytes: Buffer): void;
  digest(): string;
}

/**
 * A hash of what the turns of a conversation have in common, from its bytes: what comes before the first user message, and
 * that message, each for itself: long system prompts are the same in many conversations. Of each at most `most` bytes
 * count. Texts count alike whether a client writes them as a string or as blocks, with marks for a cache or without; blocks
 * that vLLM leaves out are left out. Undefined when the body holds no conversation.
 */
export function prefixHash(json: Buffer, object: ObjectRange, most: number): number | undefined {
  const conversation = object.members.findLast(({ key }) => CONVERSATION.includes(key));
  if (conversation === undefined) return undefined;
  const preamble = bounded(most);
  const question = bounded(most);
  for (const name of PREAMBLE) {
    const member = lastMember(object, name);
    if (member !== undefined) addContent(json, member, preamble);
  }
  const { valueStart, end } = conversation;
  // Of a text, and of numbers, the next turn has more at the end.
  if (json[valueStart] !== OPEN_BRACKET || conversation.key === 'prompt') {
    question.add(json.subarray(valueStart, Math.min(end - 1, valueStart + most)));
  } else {
    addMessages(json.subarray(0, Math.min(end, valueStart + MAX_READ_BYTES)), valueStart, preamble, question);
  }
  return Number.parseInt(hash('sha1', preamble.digest() + question.digest()).slice(0, 8), 16);
}

/** `json` may end in the middle of a message; then that is taken as it is. */
function addMessages(json: Buffer, start: number, preamble: Bounded, question: Bounded): void {
  let looked = 0;
  let at = start + 1;
  try {
    for (const element of scanElements(json, start)) {
      at = element.end;
      if (json[element.start] !== OPEN_BRACE) {
        question.add(json.subarray(element.start, element.end));
        return;
      }
      const message = scanObject(json, element.start);
      const role = lastMember(message, 'role');
      const isUsers = role !== undefined && json.toString('latin1', role.valueStart, role.end) === '"user"';
      const into = isUsers || ++looked === MAX_MESSAGES ? question : preamble;
      for (const member of message.members) if (!NOT_PROMPT.includes(member.key)) addContent(json, member, into);
      if (into === question) return;
    }
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    question.add(json.subarray(at));
  }
}

/** A text, or the texts of a list of blocks; whatever else there is, as it is written. */
function addContent(json: Buffer, { valueStart, end }: Pick<Member, 'valueStart' | 'end'>, into: Bounded): void {
  const readable = json.subarray(0, Math.min(end, valueStart + MAX_READ_BYTES));
  if (json[valueStart] !== OPEN_BRACKET || readable.length < end) {
    addText(json, valueStart, end, into);
    return;
  }
  try {
    for (const element of scanElements(readable, valueStart)) {
      if (json[element.start] !== OPEN_BRACE) {
        addText(json, element.start, element.end, into);
        continue;
      }
      const { members } = scanObject(readable, element.start);
      const text = members.findLast(({ key, valueStart: at }) => key === 'text' && json[at] === QUOTE);
      if (text !== undefined) addText(json, text.valueStart, text.end, into);
      else
        for (const member of members)
          if (!NOT_PROMPT.includes(member.key)) addText(json, member.start, member.end, into);
    }
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    addText(json, valueStart, end, into);
  }
}

function addText(json: Buffer, start: number, end: number, into: Bounded): void {
  if (json.toString('latin1', start, Math.min(end, start + VOLATILE.length)) === VOLATILE) return;
  into.add(json.subarray(start, end));
}

function bounded(most: number): Bounded {
  const half = Math.ceil(most / 2);
  const beginning = createHash('sha1');
  let left = half;
  let tail: Buffer[] = [];
  let tailBytes = 0;
  return {
    add(bytes) {
      const first = bytes.subarray(0, left);
      beginning.update(first);
      left -= first.length;
      if (first.length === bytes.length) return;
      const rest = bytes.subarray(Math.max(first.length, bytes.length - half));
      tail.push(rest);
      tailBytes += rest.length;
      if (tailBytes > 8 * half) {
        tail = [Buffer.concat(tail).subarray(-half)];
        tailBytes = half;
      }
    },
    digest: () => beginning.update(Buffer.concat(tail).subarray(-half)).digest('hex'),
  };
}
