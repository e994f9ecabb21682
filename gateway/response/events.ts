export const LF = 0x0a;
export const CR = 0x0d;
const DATA = Buffer.from('data:');

/** The offset after the last blank line; 0 when there is none. */
export function lastBlankLine(bytes: Buffer): number {
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
