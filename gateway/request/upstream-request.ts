import { GatewayError } from '../errors.ts';
import { type FlatHeaders, replaced, upstreamHeaders } from '../headers.ts';
import type { Route } from '../routes.ts';
import { type Content, type ContentDeps, MODEL_PATH, readContent, usesModel } from './content.ts';
import type { Exchange } from './exchange.ts';
import { HeldBody } from './held-body.ts';
import type { JsonBody } from './json-body.ts';
import type { Upload } from './upload.ts';

/** What is sent to a backend, whichever it will be. */
export interface UpstreamRequest extends Content {
  method: 'GET' | 'POST';
  /** Path and query; a backend's own prefix comes before it. */
  path: string;
  headers: FlatHeaders;
  /** It is for a model: it counts where requests are limited. */
  costs: boolean;
}

/** The request can be sent once more: nothing of its body is gone. */
export function mayRepeat({ body }: UpstreamRequest): boolean {
  return body === null || (body instanceof HeldBody ? body.bytes !== undefined : !body.begun);
}

/** Makes the request for the backend from the client's. Throws as `readContent` does, and `not_found`. */
export function upstreamRequest(
  route: Route,
  exchange: Exchange,
  body: HeldBody | Upload | null,
  json: JsonBody | undefined,
  deps: ContentDeps,
): UpstreamRequest {
  const { record } = exchange;
  const content = readContent(route, exchange, body, json, deps);
  const keyed = record.key !== undefined;
  const path = pathAndQuery(exchange);
  return {
    ...content,
    method: route.method,
    path: route.path === MODEL_PATH && content.model !== undefined ? modelPath(content.model) : path,
    headers: headersOf(exchange, keyed),
    costs: usesModel(route),
  };
}

/** Of a model as backends know it, which may be another name than the client's. */
function modelPath(model: string): string {
  return MODEL_PATH.replace(':id', () => encodeURIComponent(model));
}

function headersOf({ request, record }: Exchange, keyed: boolean): FlatHeaders {
  const headers = upstreamHeaders(request.rawHeaders, record.requestId, keyed);
  return record.span === undefined ? headers : replaced(headers, record.span.headers);
}

const PLAIN_PATH = /^[A-Za-z0-9_/]+$/;

/** What a proxy on the way that decodes once more would take for dots or for slashes. */
const hidesMore = (segment: string): boolean => /%(?:25)*(?:2e|2f|5c)/i.test(segment);

/** As the client wrote them. Dots that a server could resolve to another path are refused. */
function pathAndQuery({ request: { url = '' }, path }: Exchange): string {
  // Nothing that could hide a dot: nearly all requests.
  if (PLAIN_PATH.test(url)) return url;
  const segments = decodeURIComponent(path).split(/[/\\]/);
  if (segments.includes('..') || segments.includes('.') || segments.some(hidesMore))
    throw new GatewayError('not_found');
  const query = url.indexOf('?');
  return query === -1 ? path : path + url.slice(query);
}
