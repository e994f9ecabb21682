import type { ResponseHead } from '../headers.ts';
import { type Edit, removal, splice } from '../json/splice.ts';
import type { UsageShown } from '../request/force-usage.ts';
import type { StreamForm } from '../routes.ts';
import { type BodyUsage, createBodyUsage } from '../usage/body-usage.ts';
import type { Meter } from '../usage/meter.ts';
import { type FoundUsage, findUsage } from '../usage/tokens.ts';
import { dataOf, eventsOf, withData } from './events.ts';
import { aliasEdits, REASONING_NEEDLE } from './reasoning-alias.ts';
import { type RunningUsage, runningUsage } from './running-usage.ts';

const USAGE_NEEDLE = Buffer.from('"usage"');
const EMPTY = Buffer.alloc(0);
const BLANK_LINE = Buffer.from('\n\n');

/** What is to be done with a response beside passing it on. */
export interface ShaperOptions {
  form: StreamForm;
  /** Undefined: nobody counts. */
  meter: Meter | undefined;
  /** What of the usage the client asked for. */
  shows: UsageShown;
  /** Chat completions get `reasoning_content`. */
  alias: boolean;
  /** Gives the `crystal_kv` of the usage as JSON text; undefined: none is known. Undefined where nobody asked. */
  report: (() => Promise<string | undefined>) | undefined;
}

/**
 * Sees a response on its way to the client, and changes what someone asked for: byte by byte, all else stays. What it is given
 * is its own: it may change those bytes in their place.
 * `pass`: `push` takes chunks as they come, and gives the same bytes. `events`: it takes whole events. `whole`: the body is
 * kept until its end, for `finish`.
 */
export interface Shaper {
  start(status: number, head: ResponseHead): 'pass' | 'events' | 'whole';
  push(chunk: Buffer): Buffer;
  /** What `push` still owes: nothing may be pushed before it came. Undefined: nothing. */
  owed(): Promise<Buffer> | undefined;
  /** Takes what there is of an event that never ended; owes nothing. */
  last(rest: Buffer): Buffer;
  finish(body: Buffer): Buffer | Promise<Buffer>;
}

export function createShaper({ form, meter, shows, alias, report }: ShaperOptions): Shaper {
  let mode: 'pass' | 'events' | 'whole' = 'pass';
  let good = false;
  let body: BodyUsage | undefined;
  let owed: Promise<Buffer> | undefined;
  const found: RunningUsage[] = [];

  /** The last usage of a response, after which there is no other. */
  const isFinal = ({ of, alone }: FoundUsage) => (form === 'chat' ? alone : form === 'responses' || of === 'document');

  /** The usual case: events that all say what they took so far. Undefined, and nothing is changed, when one does not. */
  const withoutRunning = (whole: Buffer): Buffer | undefined => {
    if (form !== 'chat') return undefined;
    found.length = 0;
    for (let from = 0; from < whole.length; ) {
      const blank = whole.indexOf(BLANK_LINE, from);
      const usage = blank === -1 ? undefined : runningUsage(whole, from, blank + BLANK_LINE.length);
      if (usage === undefined) return undefined;
      found.push(usage);
      from = blank + BLANK_LINE.length;
    }
    for (const { choice, start, end } of found) {
      if (meter?.showedSoFar(choice, whole, start, end) === false) return undefined;
    }
    if (shows === 'always') return whole;
    // The bytes are nobody else's, and each gap is closed from behind.
    let to = 0;
    let from = 0;
    for (const { start, end } of found) {
      if (to < from) whole.copyWithin(to, from, start);
      to += start - from;
      from = end;
    }
    whole.copyWithin(to, from);
    return whole.subarray(0, to + whole.length - from);
  };

  const shapeEvents = (whole: Buffer, mayOwe = true): Buffer => {
    if (whole.length === 0) return whole;
    const plain = alias && whole.includes(REASONING_NEEDLE) ? undefined : withoutRunning(whole);
    if (plain !== undefined) return plain;
    meter?.sawEvents(whole);
    if (!whole.includes(USAGE_NEEDLE) && !(alias && whole.includes(REASONING_NEEDLE))) return whole;
    const parts: Buffer[] = [];
    const events = [...eventsOf(whole)];
    for (const [index, event] of events.entries()) {
      const data = dataOf(event);
      const json = data?.json ?? EMPTY;
      const found = json.includes(USAGE_NEEDLE) ? findUsage(json) : undefined;
      if (found?.tokens !== undefined) {
        if (form === 'chat' && found.choice !== undefined) meter?.saidSoFar(found.choice, found.tokens);
        else meter?.reported(found.tokens, isFinal(found));
      }
      if (shows === 'never' && found?.alone) continue;
      if (data === undefined) {
        parts.push(event);
        continue;
      }
      const edits = alias ? aliasEdits(json) : [];
      if (shows !== 'always' && found?.choice !== undefined) {
        edits.push(...removal(found.document, ({ key }) => key === 'usage').edits);
      }
      const shaped = (more: readonly Edit[]) => withData(event, data, splice(json, [...edits, ...more]));
      if (mayOwe && report !== undefined && found !== undefined && isFinal(found)) {
        const after = events.slice(index + 1);
        owed = report().then((text) => Buffer.concat([shaped(reportEdit(found, text)), ...after]));
        break;
      }
      parts.push(edits.length === 0 ? event : shaped([]));
    }
    return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
  };

  return {
    start(status, head) {
      if (status >= 300) return 'pass';
      good = true;
      meter?.began();
      if (head.eventStream) mode = 'events';
      else if (isJson(head) && (alias || report !== undefined)) mode = 'whole';
      else if (isJson(head) && meter !== undefined) body = createBodyUsage();
      return mode;
    },
    push(chunk) {
      if (mode === 'events') return shapeEvents(chunk);
      body?.see(chunk);
      if (good) meter?.sawBytes(chunk.length);
      const usage = body?.found();
      if (usage !== undefined) meter?.reported(usage, true);
      return chunk;
    },
    owed() {
      const promise = owed;
      owed = undefined;
      return promise;
    },
    last: (rest) => (mode === 'events' ? shapeEvents(rest, false) : rest),
    finish(json) {
      meter?.sawBytes(json.length);
      const found = findUsage(json);
      if (found?.tokens !== undefined) meter?.reported(found.tokens, true);
      const edits = alias ? aliasEdits(json) : [];
      if (report === undefined || found === undefined) return splice(json, edits);
      return report().then((text) => splice(json, [...edits, ...reportEdit(found, text)]));
    },
  };
}

function isJson({ headers }: ResponseHead): boolean {
  let json = false;
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const name = (headers[at] as string).toLowerCase();
    const value = headers[at + 1] as string;
    if (name === 'content-encoding' && value.toLowerCase() !== 'identity') return false;
    if (name === 'content-type') json = /^application\/json\b/i.test(value);
  }
  return json;
}

/** Puts `crystal_kv` behind the last member of the usage. */
function reportEdit({ object }: FoundUsage, text: string | undefined): Edit[] {
  if (text === undefined) return [];
  const last = object.members.at(-1);
  const at = last?.end ?? object.start + 1;
  return [{ start: at, end: at, text: `${last === undefined ? '' : ','}"crystal_kv":${text}` }];
}
