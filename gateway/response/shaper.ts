import type { ResponseHead } from '../headers.ts';
import { type Edit, removal, splice } from '../json/splice.ts';
import type { UsageShown } from '../request/force-usage.ts';
import type { StreamForm } from '../routes.ts';
import { type BodyUsage, createBodyUsage } from '../usage/body-usage.ts';
import type { Meter } from '../usage/meter.ts';
import { type FoundUsage, findUsage, type Usage } from '../usage/tokens.ts';
import { dataOf, eventsOf, withData } from './events.ts';
import { aliasEdits, REASONING_NEEDLE } from './reasoning-alias.ts';

const USAGE_NEEDLE = Buffer.from('"usage"');
const EMPTY = Buffer.alloc(0);

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

export function createShaper({ form, meter, shows, alias, report }: ShaperOptions): Shaper {
  let mode: 'pass' | 'events' | 'whole' = 'pass';
  let good = false;
  let body: BodyUsage | undefined;
  let owed: Promise<Buffer> | undefined;

  /** The last usage of a response, after which there is no other. */
  const isFinal = ({ of, alone }: FoundUsage) => (form === 'chat' ? alone : form === 'responses' || of === 'document');

  const shapeEvents = (whole: Buffer, mayOwe = true): Buffer => {
    if (whole.length === 0) return whole;
    meter?.sawEvents(whole);
    if (!whole.includes(USAGE_NEEDLE) && !(alias && whole.includes(REASONING_NEEDLE))) return whole;
    const parts: Buffer[] = [];
    const events = [...eventsOf(whole)];
    for (const [index, event] of events.entries()) {
      const plain = report === undefined && !alias ? usageTail(event) : undefined;
      if (plain !== undefined) {
        meter?.saidSoFar(plain.choice, plain.tokens);
        parts.push(shows === 'always' ? event : plain.without);
        continue;
      }
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

/** The end of an event of vLLM's with the usage so far. */
const TAIL = /^,"usage":\{("[a-z_]+":\d{1,15},?){2,8}\}\}(?:\n\n|\r\n\r\n|\r\r)$/;
const TAIL_NEEDLE = Buffer.from(',"usage":{');
const CHOICE = /"choices":\[\{"index":(\d{1,9})/;
/** A usage has some 80 bytes; what comes before the index of a choice, some 200. */
const MAX_TAIL_BYTES = 512;
const MAX_HEAD_BYTES = 1024;

/**
 * The usage that ends an event with a choice, as vLLM writes it, without reading what comes before: with usage asked for in
 * every event there is one for each token. In valid JSON nothing else than a member of the document can end like this.
 */
function usageTail(event: Buffer): { choice: number; tokens: Usage; without: Buffer } | undefined {
  const at = event.lastIndexOf(TAIL_NEEDLE);
  if (at === -1 || event.length - at > MAX_TAIL_BYTES) return undefined;
  const tail = event.toString('latin1', at);
  if (!TAIL.test(tail)) return undefined;
  const choice = CHOICE.exec(event.toString('latin1', 0, Math.min(at, MAX_HEAD_BYTES)))?.[1];
  const input = /"prompt_tokens":(\d+)/.exec(tail)?.[1];
  const output = /"completion_tokens":(\d+)/.exec(tail)?.[1];
  if (choice === undefined || input === undefined || output === undefined) return undefined;
  const after = at + tail.indexOf('}') + 1;
  return {
    choice: Number(choice),
    tokens: { input: Number(input), output: Number(output) },
    without: Buffer.concat([event.subarray(0, at), event.subarray(after)]),
  };
}

/** Puts `crystal_kv` behind the last member of the usage. */
function reportEdit({ object }: FoundUsage, text: string | undefined): Edit[] {
  if (text === undefined) return [];
  const last = object.members.at(-1);
  const at = last?.end ?? object.start + 1;
  return [{ start: at, end: at, text: `${last === undefined ? '' : ','}"crystal_kv":${text}` }];
}
