import { countEvents, dataOf, eventsOf } from '../response/events.ts';

/** Where the APIs put generated text. */
const TEXT: ReadonlySet<string> = new Set([
  'content',
  'text',
  'reasoning',
  'reasoning_content',
  'thinking',
  'arguments',
  'partial_json',
  'delta',
]);
/** So many events with text say how much of an event is around it. */
const SAMPLES = 8;
const MAX_SAMPLE_BYTES = 64 * 1024;
const DONE = Buffer.from('[DONE]');
/** What a token of common languages has at most, more or less. */
export const BYTES_PER_TOKEN = 4;

/**
 * Tokens of a stream by the bytes of its text: an event holds several where a server speculates or gathers them. What is
 * around the text is learned from the first events, so that the others need not be read.
 */
export interface TextEstimate {
  /** Whole events of a stream. */
  saw(whole: Buffer): void;
  tokens(): number;
}

export function createTextEstimate(): TextEstimate {
  let events = 0;
  let bytes = 0;
  let samples = 0;
  let around = Number.POSITIVE_INFINITY;
  return {
    saw(whole) {
      events += countEvents(whole);
      bytes += whole.length;
      if (samples >= SAMPLES || whole.length > MAX_SAMPLE_BYTES) return;
      for (const event of eventsOf(whole)) {
        const data = dataOf(event);
        const text = data === undefined ? 0 : textBytes(data.json);
        if (text === 0) continue;
        samples++;
        around = Math.min(around, event.length - text);
      }
    },
    tokens() {
      const text = samples === 0 ? 0 : bytes - events * around;
      return Math.max(events, Math.ceil(text / BYTES_PER_TOKEN));
    },
  };
}

/** Bytes of text in the JSON of an event; 0 when it is none. */
function textBytes(json: Buffer): number {
  // An exception costs more than all else that is done for an event.
  if (json.equals(DONE)) return 0;
  try {
    return textIn(JSON.parse(json.toString()));
  } catch {
    return 0;
  }
}

function textIn(value: unknown): number {
  let sum = 0;
  if (typeof value !== 'object' || value === null) return sum;
  for (const [key, inner] of Object.entries(value)) {
    if (typeof inner !== 'string') sum += textIn(inner);
    else if (TEXT.has(key)) sum += Buffer.byteLength(inner);
  }
  return sum;
}
