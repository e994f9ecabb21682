import type { ResponseHead } from '../headers.ts';
import { type Edit, splice } from '../json/splice.ts';
import type { StreamForm } from '../routes.ts';
import { type BodyUsage, createBodyUsage } from '../usage/body-usage.ts';
import type { Meter } from '../usage/meter.ts';
import { type FoundUsage, findUsage } from '../usage/tokens.ts';
import { countEvents, dataOf, eventsOf } from './events.ts';
import { aliasEdits, REASONING_NEEDLE } from './reasoning-alias.ts';

const USAGE_NEEDLE = Buffer.from('"usage"');
const EMPTY = Buffer.alloc(0);

/** What is to be done with a response beside passing it on. */
export interface ShaperOptions {
  form: StreamForm;
  /** Undefined: nobody counts. */
  meter: Meter | undefined;
  /** The gateway asked for the usage of the stream, the client did not. */
  hidesUsage: boolean;
  /** Chat completions get `reasoning_content`. */
  alias: boolean;
  /** Gives the `crystal_kv` of the usage as JSON text; undefined: none is known. Undefined where nobody asked. */
  report: (() => Promise<string | undefined>) | undefined;
}

/**
 * Sees a response on its way to the client, and changes what someone asked for: byte by byte, all else stays.
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

export function createShaper({ form, meter, hidesUsage, alias, report }: ShaperOptions): Shaper {
  let mode: 'pass' | 'events' | 'whole' = 'pass';
  let body: BodyUsage | undefined;
  let owed: Promise<Buffer> | undefined;

  /** The last usage of a response, after which there is no other. */
  const isFinal = ({ of, alone }: FoundUsage) => (form === 'chat' ? alone : form === 'responses' || of === 'document');

  const shapeEvents = (whole: Buffer, mayOwe = true): Buffer => {
    if (whole.length === 0) return whole;
    meter?.sawEvents(countEvents(whole));
    if (!whole.includes(USAGE_NEEDLE) && !(alias && whole.includes(REASONING_NEEDLE))) return whole;
    const parts: Buffer[] = [];
    const events = [...eventsOf(whole)];
    for (const [index, event] of events.entries()) {
      const data = dataOf(event);
      const json = data === undefined ? EMPTY : event.subarray(data.start, data.end);
      const found = json.includes(USAGE_NEEDLE) ? findUsage(json) : undefined;
      if (found?.tokens !== undefined) meter?.reported(found.tokens);
      if (hidesUsage && found?.alone) continue;
      if (data === undefined) {
        parts.push(event);
        continue;
      }
      const edits = alias ? aliasEdits(json) : [];
      const shaped = (more: readonly Edit[]) => replaceData(event, data, splice(json, [...edits, ...more]));
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
      if (head.eventStream) mode = 'events';
      else if (isJson(head) && (alias || report !== undefined)) mode = 'whole';
      else if (isJson(head) && meter !== undefined) body = createBodyUsage();
      return mode;
    },
    push(chunk) {
      if (mode === 'events') return shapeEvents(chunk);
      body?.see(chunk);
      const usage = body?.found();
      if (usage !== undefined) meter?.reported(usage);
      return chunk;
    },
    owed() {
      const promise = owed;
      owed = undefined;
      return promise;
    },
    last: (rest) => (mode === 'events' ? shapeEvents(rest, false) : rest),
    finish(json) {
      const found = findUsage(json);
      if (found?.tokens !== undefined) meter?.reported(found.tokens);
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

function replaceData(event: Buffer, { start, end }: { start: number; end: number }, json: Buffer): Buffer {
  return Buffer.concat([event.subarray(0, start), json, event.subarray(end)]);
}

/** Puts `crystal_kv` behind the last member of the usage. */
function reportEdit({ object }: FoundUsage, text: string | undefined): Edit[] {
  if (text === undefined) return [];
  const last = object.members.at(-1);
  const at = last?.end ?? object.start + 1;
  return [{ start: at, end: at, text: `${last === undefined ? '' : ','}"crystal_kv":${text}` }];
}
