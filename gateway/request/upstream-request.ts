import type { Request } from 'express';
import { GatewayError, modelNotFound } from '../errors.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { prefixHash } from '../fleet/prefix.ts';
import { type FlatHeaders, replaced, upstreamHeaders } from '../headers.ts';
import { checkModel, isAllowed, type OptionReader } from '../keys/access.ts';
import { crystalKvId } from '../observe/ids.ts';
import type { RequestRecord } from '../observe/record.ts';
import type { Route } from '../routes.ts';
import { forceUsage } from './force-usage.ts';
import {
  type RequestBody,
  readRequestBody,
  renameModel,
  rewriteRequestBody,
  textMember,
  type WantedOutput,
  wantedOutput,
} from './json-body.ts';
import type { Upload } from './upload.ts';

/** What is sent to a backend, whichever it will be. */
export interface UpstreamRequest {
  method: 'GET' | 'POST';
  /** Path and query; a backend's own prefix comes before it. */
  path: string;
  headers: FlatHeaders;
  /** An upload is opened anew for each attempt. */
  body: Buffer | Upload | null;
  /** The model that the body names, as backends know it; undefined when it names none or is not looked at. */
  model: string | undefined;
  /** Of the first part of the conversation; undefined when no balancing rule asks for it. */
  prefixHash: number | undefined;
  /** The response that this one goes on from. */
  previousResponse: string | undefined;
  /** It is for a model: it counts where requests are limited. */
  costs: boolean;
  /** The output that it asks for; undefined: it makes none. */
  output: WantedOutput | undefined;
  /** The gateway asked for the usage of the stream, the client did not. */
  usageForced: boolean;
  /** The client asks what became of the cache. */
  report: boolean;
  /** The client's own credential goes with it; else the backend gets the one that is configured for it. */
  credential: 'client' | 'backend';
}

/** The request can be sent once more: nothing of its body is gone. */
export function mayRepeat({ body }: UpstreamRequest): boolean {
  return body === null || Buffer.isBuffer(body) || !body.begun;
}

export interface UpstreamRequestDeps {
  readOption: OptionReader;
  /** Streams are to tell their usage. */
  forcesUsage: boolean;
  fleet: Pick<Fleet, 'aliases' | 'resolve' | 'looksAtModels' | 'modelsDiffer' | 'prefixBytes'>;
}

const MODEL_PATH = '/v1/models/:id';

type Content = Pick<
  UpstreamRequest,
  'body' | 'model' | 'prefixHash' | 'previousResponse' | 'output' | 'usageForced' | 'report'
>;
const UNREAD = {
  model: undefined,
  prefixHash: undefined,
  previousResponse: undefined,
  output: undefined,
  usageForced: false,
  report: false,
} as const;

/**
 * Makes the request for the backend from the client's. Throws `malformed_json`, `invalid_option`, `model_not_allowed`,
 * `model_not_found` or `not_found`. The gateway's id is on the record afterwards when it went into the body, and only then.
 */
export function upstreamRequest(
  route: Route,
  record: RequestRecord,
  request: Request,
  body: Buffer | Upload | null,
  deps: UpstreamRequestDeps,
): UpstreamRequest {
  const keyed = record.key !== undefined;
  let headers = upstreamHeaders(request.rawHeaders, record.requestId, keyed);
  if (record.span !== undefined) headers = replaced(headers, record.span.headers);
  const content = (): Content => {
    if (body === null) return { body, ...UNREAD, model: namedInPath(route, request, record, deps.fleet) };
    if (!Buffer.isBuffer(body)) {
      record.model = body.model;
      const model = body.model === undefined ? undefined : deps.fleet.resolve(body.model);
      const renamed = model === undefined || model === body.model ? body : body.renamed(model);
      // Without it an upload goes in chunks, as it does when the client did not say the length either.
      if (renamed.length !== undefined) headers.push('content-length', String(renamed.length));
      return { ...UNREAD, body: renamed, model };
    }
    if (route.body === 'raw') return rawContent(record, body, deps.fleet);
    return rewritten(route, record, body, deps);
  };
  if (record.key?.models !== undefined && usesModel(route)) checkModel(record.key, modelOf(body));
  const read = content();
  const path = pathAndQuery(request);
  return {
    method: route.method,
    path: route.path === MODEL_PATH && read.model !== undefined ? `/v1/models/${encodeURIComponent(read.model)}` : path,
    headers,
    costs: usesModel(route),
    credential: keyed || request.headers.authorization === undefined ? 'backend' : 'client',
    ...read,
  };
}

/** All that is posted is for a model, except the question whether the server is there, and what is about a response. */
function usesModel({ method, path, sticky }: Route): boolean {
  return method === 'POST' && path !== '/ping' && sticky !== 'finds';
}

/** As the client names it, and the last of duplicates, as for every reader. */
function modelOf(body: Buffer | Upload | null): string | undefined {
  return Buffer.isBuffer(body) ? readRequestBody(body).model : body?.model;
}

/** `/v1/models/:id` is for a backend that serves it, and a model that the key is not for is as if it were not there. */
function namedInPath(
  { path }: Route,
  { params: { id } }: Request,
  { key }: RequestRecord,
  fleet: UpstreamRequestDeps['fleet'],
): string | undefined {
  if (path !== MODEL_PATH || typeof id !== 'string') return undefined;
  if (!isAllowed(key, id)) throw modelNotFound(id);
  return fleet.looksAtModels ? fleet.resolve(id) : undefined;
}

/** A body that is looked at only for its model, and only where that decides something. */
function rawContent(record: RequestRecord, bytes: Buffer, fleet: UpstreamRequestDeps['fleet']): Content {
  if (!fleet.looksAtModels || bytes.length === 0) return { body: bytes, ...UNREAD };
  let body: RequestBody;
  try {
    body = readRequestBody(bytes);
  } catch {
    // For the backend to refuse.
    return { body: bytes, ...UNREAD };
  }
  record.model = body.model;
  const model = body.model === undefined ? undefined : fleet.resolve(body.model);
  if (model === undefined || model === body.model) return { ...UNREAD, body: bytes, model };
  return { ...UNREAD, body: renameModel(body, model), model };
}

function rewritten(route: Route, record: RequestRecord, bytes: Buffer, deps: UpstreamRequestDeps): Content {
  const { fleet, readOption, forcesUsage } = deps;
  const body = readRequestBody(bytes);
  const option = readOption(body.option, record.key);
  record.model = body.model;
  const model = body.model === undefined ? undefined : fleet.resolve(body.model);
  const renamed = model === body.model ? undefined : model;
  if (route.sticky === 'makes' && record.key !== undefined) checkResponseId(body);
  if (route.body === 'option') return { ...UNREAD, body: rewriteRequestBody(body, {}, renamed).bytes, model };
  const id = crystalKvId();
  const keys = {
    crystalkv_id: id,
    ...(option.profile !== undefined && { crystalkv_profile: option.profile }),
    ...(option.budget_tokens !== undefined && { crystalkv_budget_tokens: option.budget_tokens }),
    ...(option.mode !== undefined && { crystalkv_mode: option.mode }),
  };
  const forced = forcesUsage && body.stream && route.form === 'chat' ? forceUsage(body) : undefined;
  const result = rewriteRequestBody(body, keys, renamed, forced);
  if (result.added) record.crystalKvId = id;
  const { prefixBytes } = fleet;
  return {
    body: result.bytes,
    model,
    prefixHash: prefixBytes === undefined ? undefined : prefixHash(bytes, body.object, prefixBytes),
    output: wantedOutput(body),
    usageForced: forced !== undefined,
    report: option.report === true,
    previousResponse: route.sticky === 'makes' ? textMember(body, 'previous_response_id') : undefined,
  };
}

/** A response is its key's: who could name it could take the name of another's. */
function checkResponseId(body: RequestBody): void {
  if (textMember(body, 'request_id') === undefined) return;
  throw new GatewayError('invalid_option', {
    message: 'request_id must be left out: with API keys on, the server names responses',
    param: 'request_id',
  });
}

const PLAIN_PATH = /^[A-Za-z0-9_/]+$/;

/** As the client wrote them. Dots that a server could resolve to another path are refused. */
function pathAndQuery(request: Request): string {
  const { url } = request;
  // Nothing that could hide a dot: nearly all requests.
  if (PLAIN_PATH.test(url)) return url;
  const { path } = request;
  const segments = decodeURIComponent(path).split(/[/\\]/);
  if (segments.includes('..') || segments.includes('.')) throw new GatewayError('not_found');
  const query = url.indexOf('?');
  return query === -1 ? path : path + url.slice(query);
}
