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

/** The data of an event: the bytes of its lines, and where they are; lines that are not data may lie between. */
export interface EventData {
  json: Buffer;
  start: number;
  end: number;
}

/** Undefined when the event has no data. Data of several lines is joined, as readers do. */
export function dataOf(event: Buffer): EventData | undefined {
  const lines: { start: number; end: number }[] = [];
  for (let at = event.indexOf(DATA); at !== -1; ) {
    const isLine = at === 0 || event[at - 1] === LF || event[at - 1] === CR;
    const start = at + DATA.length;
    if (!isLine) {
      at = event.indexOf(DATA, start);
      continue;
    }
    const end = lineEnd(event, start);
    lines.push({ start: event[start] === 0x20 ? start + 1 : start, end });
    at = event.indexOf(DATA, end);
  }
  const [first] = lines;
  const last = lines.at(-1);
  if (first === undefined || last === undefined) return undefined;
  const json =
    lines.length === 1
      ? event.subarray(first.start, first.end)
      : Buffer.from(lines.map(({ start, end }) => event.toString('latin1', start, end)).join('\n'), 'latin1');
  return { json, start: first.start, end: last.end };
}

/** The event with other data. */
export function withData(event: Buffer, { start, end }: EventData, json: Buffer): Buffer {
  const lines = json.includes(LF) ? Buffer.from(json.toString('latin1').replaceAll('\n', '\ndata: '), 'latin1') : json;
  return Buffer.concat([event.subarray(0, start), lines, event.subarray(end)]);
}

function lineEnd(event: Buffer, from: number): number {
  let at = from;
  while (at < event.length && event[at] !== LF && event[at] !== CR) at++;
  return at;
}
