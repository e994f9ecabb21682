import type { Request } from 'express';
import { GatewayError } from './errors.ts';
import { type FlatHeaders, replaced, upstreamHeaders } from './headers.ts';
import { crystalKvId } from './identity.ts';
import type { CrystalKvOption } from './options.ts';
import type { RequestRecord } from './record.ts';
import { readRequestBody, rewriteRequestBody } from './request-body.ts';
import type { Route } from './routes.ts';
import type { Upload } from './upload.ts';

/** What is sent to a backend, whichever it will be. */
export interface UpstreamRequest {
  method: 'GET' | 'POST';
  /** Path and query; a backend's own prefix comes before it. */
  path: string;
  headers: FlatHeaders;
  /** An upload is opened anew for each try. */
  body: Buffer | Upload | null;
  /** The model that the body names; undefined when it names none or is not looked at. */
  model: string | undefined;
}

/** The request can be sent once more: nothing of its body is gone. */
export function mayRepeat({ body }: UpstreamRequest): boolean {
  return body === null || Buffer.isBuffer(body) || !body.begun;
}

/**
 * Makes the request for the backend from the client's. Throws `malformed_json`, `invalid_option` or `not_found`. The
 * gateway's id is on the record afterwards when it went into the body, and only then.
 */
export function upstreamRequest(
  route: Route,
  record: RequestRecord,
  request: Request,
  body: Buffer | Upload | null,
  parseOption: (value: unknown) => CrystalKvOption,
): UpstreamRequest {
  let headers = upstreamHeaders(request.rawHeaders, record.requestId);
  if (record.span !== undefined) headers = replaced(headers, record.span.headers);
  // Without it an upload goes in chunks, as it does when the client did not say the length either.
  const length = request.headers['content-length'];
  if (route.body === 'upload' && length !== undefined) headers.push('content-length', length);
  const looked = route.body === 'option' || route.body === 'generation' ? route.body : undefined;
  return {
    method: route.method,
    path: pathAndQuery(request),
    headers,
    ...(looked !== undefined && Buffer.isBuffer(body)
      ? rewritten(looked, record, body, parseOption)
      : { body, model: undefined }),
  };
}

function rewritten(
  kind: 'option' | 'generation',
  record: RequestRecord,
  bytes: Buffer,
  parseOption: (value: unknown) => CrystalKvOption,
): Pick<UpstreamRequest, 'body' | 'model'> {
  const body = readRequestBody(bytes);
  const option = body.option === undefined ? {} : parseOption(body.option);
  const { model } = body;
  record.model = model;
  if (kind === 'option') return { body: rewriteRequestBody(body, {}).bytes, model };
  const id = crystalKvId();
  const result = rewriteRequestBody(body, {
    crystalkv_id: id,
    ...(option.profile !== undefined && { crystalkv_profile: option.profile }),
    ...(option.budget_tokens !== undefined && { crystalkv_budget_tokens: option.budget_tokens }),
    ...(option.mode !== undefined && { crystalkv_mode: option.mode }),
  });
  if (result.added) record.crystalKvId = id;
  return { body: result.bytes, model };
}

/** As the client wrote them. Dots that a server could resolve to another path are refused. */
function pathAndQuery({ path, url }: Request): string {
  const segments = decodeURIComponent(path).split(/[/\\]/);
  if (segments.includes('..') || segments.includes('.')) throw new GatewayError('not_found');
  const query = url.indexOf('?');
  return query === -1 ? path : path + url.slice(query);
}
