/** Names in lower case that are about one connection and not about the message (RFC 9110, 7.6.1). */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** Made anew for the backend: framing by the HTTP client, identity and encoding by the gateway. */
const REQUEST_OWN: ReadonlySet<string> = new Set([
  'host',
  'content-length',
  'expect',
  'accept-encoding',
  'x-request-id',
  'x-crystalkv-id',
]);

/** A client's key for the gateway; no backend gets it. */
const CREDENTIALS: ReadonlySet<string> = new Set([...REQUEST_OWN, 'authorization', 'x-api-key']);

/** Who may read an answer in a browser is the gateway's to say; vLLM says everybody, unless it is told otherwise. */
const RESPONSE_OWN: ReadonlySet<string> = new Set([
  'x-request-id',
  'x-crystalkv-id',
  'x-accel-buffering',
  'access-control-allow-origin',
  'access-control-allow-credentials',
  'access-control-expose-headers',
]);

const CONTENT_LENGTH: ReadonlySet<string> = new Set(['content-length']);

/** Names and values in turn, as Node's `rawHeaders`: order, case and duplicates stay. */
export type FlatHeaders = string[];

/**
 * A client's headers for the backend, without its credentials when they were meant for the gateway. Not compressed: an
 * error event could not be put into a compressed stream.
 */
export function upstreamHeaders(raw: readonly string[], requestId: string, keyed: boolean): FlatHeaders {
  const headers = without(raw, keyed ? CREDENTIALS : REQUEST_OWN);
  headers.push('accept-encoding', 'identity', 'x-request-id', requestId);
  return headers;
}

/** Headers with some of them replaced, or taken away where the value is undefined. Names in lower case. */
export function replaced(headers: FlatHeaders, by: Readonly<Record<string, string | undefined>>): FlatHeaders {
  const kept = without(headers, new Set(Object.keys(by)));
  for (const [name, value] of Object.entries(by)) if (value !== undefined) kept.push(name, value);
  return kept;
}

/** What the gateway has to know of a backend's headers, and the ones that go to the client. */
export interface ResponseHead {
  headers: FlatHeaders;
  /** An event stream whose bytes are text, so that an event can be added. */
  eventStream: boolean;
  /** The end of the body can be told from a broken connection. */
  framed: boolean;
  retryAfter: string | undefined;
}

/** A backend's headers for the client. */
export function responseHead(raw: readonly (Buffer | string)[]): ResponseHead {
  const flat = raw.map((part) => (typeof part === 'string' ? part : part.toString('latin1')));
  let eventStream = false;
  let framed = false;
  let retryAfter: string | undefined;
  for (const [name, value] of pairs(flat)) {
    if (name === 'content-type') eventStream = /^text\/event-stream\b/i.test(value);
    if (name === 'transfer-encoding' || name === 'content-length') framed = true;
    if (name === 'retry-after') retryAfter = value;
  }
  for (const [name, value] of pairs(flat)) {
    if (name === 'content-encoding' && value.toLowerCase() !== 'identity') eventStream = false;
  }
  const headers = without(flat, RESPONSE_OWN);
  if (eventStream) headers.push('x-accel-buffering', 'no');
  return { headers, eventStream, framed, retryAfter };
}

/** A body's headers with another length. */
export function withLength(headers: readonly string[], length: number): FlatHeaders {
  return [...without(headers, CONTENT_LENGTH), 'content-length', String(length)];
}

/** Plain loops: this runs twice for each request, and a generator of triples cost several times as much. */
function without(raw: readonly string[], own: ReadonlySet<string>): FlatHeaders {
  let named: Set<string> | undefined;
  const kept: FlatHeaders = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const original = raw[i] as string;
    const name = original.toLowerCase();
    if (name === 'connection') {
      named ??= new Set();
      for (const token of (raw[i + 1] as string).split(',')) named.add(token.trim().toLowerCase());
    }
    if (!HOP_BY_HOP.has(name) && !own.has(name)) kept.push(original, raw[i + 1] as string);
  }
  // Named here, they may come before the header that names them.
  return named === undefined ? kept : withoutNamed(kept, named);
}

function withoutNamed(headers: FlatHeaders, named: ReadonlySet<string>): FlatHeaders {
  const kept: FlatHeaders = [];
  for (let i = 0; i < headers.length; i += 2) {
    const original = headers[i] as string;
    if (!named.has(original.toLowerCase())) kept.push(original, headers[i + 1] as string);
  }
  return kept;
}

/** Names in lower case, with their values. */
function* pairs(flat: readonly string[]): Generator<[name: string, value: string]> {
  for (let i = 0; i + 1 < flat.length; i += 2) {
    yield [(flat[i] as string).toLowerCase(), flat[i + 1] as string];
  }
}
