const LF = 0x0a;
const CR = 0x0d;
const EMPTY = Buffer.alloc(0);
const DATA = Buffer.from('data:');
/** The last event of the responses API holds the whole response. A longer event is passed on in pieces, unseen. */
const MAX_HELD_BYTES = 16 * 1024 * 1024;

/** Cuts the bytes of an event stream after blank lines, whatever their line ends are. */
export interface EventCutter {
  /** Whole events, possibly none: what follows the last blank line waits. */
  push(chunk: Buffer): Buffer;
  /** What waits. */
  rest(): Buffer;
}

export function createEventCutter(): EventCutter {
  let held: Buffer[] = [];
  let heldBytes = 0;
  let tail: Buffer = EMPTY;

  return {
    push(chunk) {
      // A blank line may lie across two chunks.
      const seen = tail.length === 0 ? chunk : Buffer.concat([tail, chunk]);
      const end = lastBoundary(seen) - tail.length;
      if (end <= 0) {
        held.push(chunk);
        heldBytes += chunk.length;
        tail = seen.subarray(Math.max(0, seen.length - 3));
        return heldBytes > MAX_HELD_BYTES ? this.rest() : EMPTY;
      }
      const whole = held.length === 0 ? chunk.subarray(0, end) : Buffer.concat([...held, chunk.subarray(0, end)]);
      const open = chunk.subarray(end);
      held = open.length === 0 ? [] : [open];
      heldBytes = open.length;
      tail = open.subarray(Math.max(0, open.length - 3));
      return whole;
    },
    rest() {
      const bytes = Buffer.concat(held);
      held = [];
      heldBytes = 0;
      tail = EMPTY;
      return bytes;
    },
  };
}

/** The offset after the last blank line; 0 when there is none. */
function lastBoundary(bytes: Buffer): number {
  for (let at = bytes.length - 1; at > 0; at--) if (isBoundary(bytes, at)) return at + 1;
  return 0;
}

/** Whether the byte at `at` ends a blank line. */
function isBoundary(bytes: Buffer, at: number): boolean {
  if (bytes[at] === LF) return bytes[at - 1] === LF || (bytes[at - 1] === CR && bytes[at - 2] === LF);
  return bytes[at] === CR && bytes[at - 1] === CR;
}

/** One event after another, blank line included; a rest without one comes last. */
export function* eventsOf(whole: Buffer): Generator<Buffer> {
  let start = 0;
  for (let at = 1; at < whole.length; at++) {
    if (!isBoundary(whole, at)) continue;
    yield whole.subarray(start, at + 1);
    start = at + 1;
  }
  if (start < whole.length) yield whole.subarray(start);
}

/** How many events there are. */
export function countEvents(whole: Buffer): number {
  let events = 0;
  for (let at = whole.indexOf(DATA); at !== -1; at = whole.indexOf(DATA, at + DATA.length)) {
    if (at === 0 || whole[at - 1] === LF || whole[at - 1] === CR) events++;
  }
  return events;
}

/** Where an event's data is; undefined when it has none, or more than one line of it. */
export function dataOf(event: Buffer): { start: number; end: number } | undefined {
  let found: { start: number; end: number } | undefined;
  for (let at = 0; at < event.length; ) {
    const end = lineEnd(event, at);
    if (event.subarray(at, at + DATA.length).equals(DATA)) {
      if (found !== undefined) return undefined;
      const start = at + DATA.length;
      found = { start: event[start] === 0x20 ? start + 1 : start, end };
    }
    at = end + 1;
  }
  return found;
}

function lineEnd(event: Buffer, from: number): number {
  const lf = event.indexOf(LF, from);
  const cr = event.indexOf(CR, from);
  if (lf === -1) return cr === -1 ? event.length : cr;
  return cr === -1 ? lf : Math.min(lf, cr);
}
