import type { UsageShown } from '../request/force-usage.ts';
import { dataOf, eventsOf } from '../response/events.ts';
import type { StreamForm } from '../routes.ts';
import { BYTES_PER_TOKEN } from '../usage/text-estimate.ts';
import { type EventJson, listOf, objectOf, THINKING_NEEDLES, thinkingOf } from './deltas.ts';
import { lastEvents, type ThinkingEnd } from './last-events.ts';
import { Repetition } from './repetition.ts';

/** What a stream may think. */
export interface ThinkingBounds {
  /** Tokens of each choice; undefined: any number. */
  most: number | undefined;
  stopsRepeating: boolean;
}

/** What of a stream is to be passed on, and how it ends where it thinks too much. */
export interface ThinkingGuard {
  /** Takes whole events. `end` comes behind `bytes`, and nothing after it. */
  see(whole: Buffer): { bytes: Buffer; end: string | undefined };
  /** Why it was ended. */
  readonly ended: ThinkingEnd | undefined;
}

/** One choice of a stream. */
interface Thought {
  tokens: number;
  repetition: Repetition;
}

/** Of the responses API, whose last event repeats it. */
const CREATED = Buffer.from('response.created');
const FINISH = Buffer.from('"finish_reason":"');

export function createThinkingGuard(form: StreamForm, shows: UsageShown, bounds: ThinkingBounds): ThinkingGuard {
  const thoughts = new Map<number, Thought>();
  const finished = new Set<number>();
  let response: EventJson = {};
  /** What the events said so far; the tokens of one choice only where there are no others. */
  let usage: EventJson | undefined;
  let said = 0;
  let ended: ThinkingEnd | undefined;

  /** Tokens that an event adds to a choice: what the server says, else the bytes of the text. */
  const tokensIn = (text: string, event: EventJson): number => {
    const total = objectOf(event['usage'])['completion_tokens'];
    if (typeof total !== 'number' || thoughts.size > 1)
      return Math.max(1, Math.round(Buffer.byteLength(text) / BYTES_PER_TOKEN));
    const added = Math.max(0, total - said);
    said = total;
    return added;
  };

  const look = (event: EventJson): ThinkingEnd | undefined => {
    if (typeof event['usage'] === 'object' && event['usage'] !== null) usage = objectOf(event['usage']);
    if (event['type'] === 'response.created') response = objectOf(event['response']);
    for (const { index, finish_reason } of listOf(event['choices'])) {
      if (typeof finish_reason === 'string') finished.add(Number(index ?? 0));
    }
    for (const { choice, text } of thinkingOf(form, event)) {
      const thought = thoughts.get(choice) ?? { tokens: 0, repetition: new Repetition() };
      thoughts.set(choice, thought);
      thought.tokens += tokensIn(text, event);
      if (bounds.most !== undefined && thought.tokens > bounds.most) return 'thinking_limit';
      if (bounds.stopsRepeating && thought.repetition.add(text)) return 'thinking_loop';
    }
    return undefined;
  };

  const needles = [...THINKING_NEEDLES[form], form === 'responses' ? CREATED : FINISH];
  const showsUsage = () => shows === 'last' || (shows === 'always' && usage !== undefined);

  return {
    get ended() {
      return ended;
    },
    see(whole) {
      if (!needles.some((needle) => whole.includes(needle))) return { bytes: whole, end: undefined };
      let passed = 0;
      for (const bytes of eventsOf(whole)) {
        passed += bytes.length;
        const event = jsonOf(bytes);
        ended = event === undefined ? undefined : look(event);
        if (event === undefined || ended === undefined) continue;
        const choices = [...thoughts.keys()].filter((choice) => !finished.has(choice));
        const tokens = [...thoughts.values()].reduce((sum, thought) => sum + thought.tokens, 0);
        const end = lastEvents({
          ...{ form, reason: ended, event, response, choices, tokens },
          usage: showsUsage() ? usage : undefined,
        });
        return { bytes: whole.subarray(0, passed), end };
      }
      return { bytes: whole, end: undefined };
    },
  };
}

function jsonOf(event: Buffer): EventJson | undefined {
  const data = dataOf(event);
  if (data === undefined) return undefined;
  try {
    return objectOf(JSON.parse(data.json.toString()));
  } catch {
    return undefined;
  }
}
