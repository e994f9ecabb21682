import type { IncomingHttpHeaders } from 'node:http';
import { GatewayError, modelNotFound } from '../errors.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { prefixHash } from '../fleet/prefix.ts';
import { sessionHash } from '../fleet/session-key.ts';
import { STEP_BYTES } from '../json/scan.ts';
import { checkModel, isAllowed, type OptionReader } from '../keys/access.ts';
import { crystalKvId } from '../observe/ids.ts';
import type { RequestRecord } from '../observe/record.ts';
import type { Route } from '../routes.ts';
import type { Exchange } from './exchange.ts';
import { forceUsage, NOT_FORCED, type UsageShown } from './force-usage.ts';
import { HeldBody } from './held-body.ts';
import { JsonBody } from './json-body.ts';
import { modelEdits, OPTION, rewrite } from './rewrite.ts';
import type { Upload } from './upload.ts';
import { type WantedOutput, wantedOutput } from './wanted-output.ts';

/** What a request asks for, as far as the gateway reads it, and the body that says so to a backend. */
export interface Content {
  /** Opened anew for each attempt. */
  body: HeldBody | Upload | null;
  /** The model that the body names, as backends know it; undefined when it names none or is not looked at. */
  model: string | undefined;
  /** Of the conversation; undefined when no balancing rule asks for it. */
  prefixHash: number | undefined;
  /** The response that this one goes on from. */
  previousResponse: string | undefined;
  /** The output that it asks for; undefined: it makes none. */
  output: WantedOutput | undefined;
  /** Where in a stream the client is to see its usage: it sees what it asked for, not what the gateway did. */
  usageShown: UsageShown;
  /** The cache profile that holds for it; undefined: the policy service's default. */
  profile: string | undefined;
  /** The client asks what became of the cache. */
  report: boolean;
  /** It asks for an event stream. */
  stream: boolean;
}

export interface ContentDeps {
  readOption: OptionReader;
  /** Streams are to tell their usage. */
  forcesUsage: boolean;
  fleet: Pick<Fleet, 'aliases' | 'resolve' | 'looksAtModels' | 'modelsDiffer' | 'conversations'>;
}

export const MODEL_PATH = '/v1/models/:id';
const UNREAD = {
  model: undefined,
  prefixHash: undefined,
  previousResponse: undefined,
  output: undefined,
  usageShown: 'always',
  profile: undefined,
  report: false,
  stream: false,
} as const;

/**
 * Reads a body once, as far as its route needs, and makes the one for the backend. Throws `malformed_json`,
 * `invalid_option`, `model_not_allowed` or `model_not_found`. The gateway's id is on the record afterwards when it went
 * into the body, and only then.
 */
export function readContent(
  route: Route,
  exchange: Exchange,
  body: HeldBody | Upload | null,
  json: JsonBody | undefined,
  deps: ContentDeps,
): Content {
  const { record } = exchange;
  const { fleet } = deps;
  if (body === null) return { ...UNREAD, body, model: namedInPath(route, exchange, fleet) };
  const restricted = isRestricted(route, record);
  if (!(body instanceof HeldBody)) {
    if (restricted) checkModel(record.key, body.model);
    record.model = body.model;
    const model = body.model === undefined ? undefined : fleet.resolve(body.model);
    return { ...UNREAD, body: model === undefined || model === body.model ? body : body.renamed(model), model };
  }
  if (restricted) checkModel(record.key, json?.model);
  if (route.body === 'raw') {
    return json === undefined || !fleet.looksAtModels ? { ...UNREAD, body } : renamed(body, json, record, fleet);
  }
  return json === undefined ? { ...UNREAD, body } : rewritten(body, json, route, exchange, deps);
}

/**
 * The JSON of a body; undefined where nothing of it has to be known. Of a long one in turns with everything else. Throws,
 * or rejects with, `malformed_json`; what is no JSON and is looked at for its model only, the backend refuses.
 */
export function readJson(
  route: Route,
  { record }: Exchange,
  body: HeldBody | Upload | null,
  { fleet }: ContentDeps,
): JsonBody | undefined | Promise<JsonBody | undefined> {
  const bytes = body instanceof HeldBody ? body.bytes : undefined;
  if (bytes === undefined) return undefined;
  const isNeeded = route.body !== 'raw' || isRestricted(route, record);
  if (!isNeeded && (!fleet.looksAtModels || bytes.length === 0)) return undefined;
  if (bytes.length > STEP_BYTES) {
    const read = JsonBody.inTurns(bytes);
    return isNeeded ? read : read.catch(() => undefined);
  }
  if (isNeeded) return new JsonBody(bytes);
  try {
    return new JsonBody(bytes);
  } catch {
    return undefined;
  }
}

function isRestricted(route: Route, { key }: RequestRecord): boolean {
  return key?.models !== undefined && usesModel(route);
}

/** All that is posted is for a model, except the question whether the server is there, and what is about a response. */
export function usesModel({ method, path, sticky }: Route): boolean {
  return method === 'POST' && path !== '/ping' && sticky !== 'finds';
}

/** `/v1/models/:id` is for a backend that serves it, and a model that the key is not for is as if it were not there. */
function namedInPath(
  { path }: Route,
  { params: { id }, record: { key } }: Exchange,
  fleet: ContentDeps['fleet'],
): string | undefined {
  if (path !== MODEL_PATH || typeof id !== 'string') return undefined;
  if (!isAllowed(key, id)) throw modelNotFound(id);
  return fleet.looksAtModels ? fleet.resolve(id) : undefined;
}

function renamed(body: HeldBody, json: JsonBody, record: RequestRecord, fleet: ContentDeps['fleet']): Content {
  record.model = json.model;
  const model = json.model === undefined ? undefined : fleet.resolve(json.model);
  const same = model === undefined || model === json.model;
  return { ...UNREAD, body: same ? body : body.edited(modelEdits(json.object, model)), model };
}

function rewritten(
  body: HeldBody,
  json: JsonBody,
  route: Route,
  { request, record }: Exchange,
  deps: ContentDeps,
): Content {
  const { fleet, readOption, forcesUsage } = deps;
  const option = readOption(json.value(OPTION) ?? undefined, record.key);
  record.model = json.model;
  const model = json.model === undefined ? undefined : fleet.resolve(json.model);
  const newName = model === json.model ? undefined : model;
  if (route.sticky === 'makes' && record.key !== undefined) checkResponseId(json);
  if (route.body === 'option') return { ...UNREAD, body: body.edited(rewrite(json, {}, newName).edits), model };
  const id = crystalKvId();
  const keys = {
    crystalkv_id: id,
    ...(option.profile !== undefined && { crystalkv_profile: option.profile }),
    ...(option.budget_tokens !== undefined && { crystalkv_budget_tokens: option.budget_tokens }),
    ...(option.mode !== undefined && { crystalkv_mode: option.mode }),
  };
  const forced = forcesUsage && json.stream && route.form === 'chat' ? forceUsage(json) : NOT_FORCED;
  const { edits, added } = rewrite(json, keys, newName, forced.edits);
  if (added) record.crystalKvId = id;
  return {
    body: body.edited(edits, added ? rewrite(json, {}, newName, forced.edits).edits : undefined),
    model,
    prefixHash: conversationOf(json, request.headers, fleet),
    output: wantedOutput(json, route.path),
    usageShown: forced.shown,
    profile: option.profile,
    report: option.report === true,
    stream: json.stream,
    previousResponse: route.sticky === 'makes' ? json.text('previous_response_id') : undefined,
  };
}

/** What a client calls its conversation by, else what its turns have in common. */
function conversationOf(
  { bytes, object }: JsonBody,
  headers: IncomingHttpHeaders,
  { conversations }: ContentDeps['fleet'],
): number | undefined {
  if (conversations === undefined) return undefined;
  const { prefix_bytes, session_header } = conversations;
  return sessionHash(bytes, object, headers, session_header) ?? prefixHash(bytes, object, prefix_bytes);
}

/** A response is its key's: who could name it could take the name of another's. */
function checkResponseId(json: JsonBody): void {
  if (!json.isText('request_id')) return;
  throw new GatewayError('invalid_option', {
    message: 'request_id is not allowed with API keys: the server chooses the ids of responses',
    param: 'request_id',
  });
}
