import type { LoadShedder } from './admission/shedding.ts';
import { stopAnswer } from './attempts/failure.ts';
import type { Serve } from './attempts/serve.ts';
import { GatewayError } from './errors.ts';
import type { Stick } from './fleet/sticky.ts';
import type { KeyLimits } from './limits/key-limits.ts';
import type { Metrics } from './observe/metrics.ts';
import type { StopReason } from './observe/outcomes.ts';
import { ownHeaders } from './observe/record.ts';
import { announcedLength, readBody } from './request/body.ts';
import type { ContentDeps } from './request/content.ts';
import type { Exchange, Handler } from './request/exchange.ts';
import type { Inflight } from './request/inflight.ts';
import { openUpload, type Upload } from './request/upload.ts';
import { readUploadHead } from './request/upload-head.ts';
import { upstreamRequest } from './request/upstream-request.ts';
import { createDownstream } from './response/downstream.ts';
import type { Route } from './routes.ts';
import type { Metering } from './usage/metering.ts';

export interface ForwardDeps {
  serve: Serve;
  request: ContentDeps;
  /** Says which backend must get the request. */
  stick: Stick;
  shedder: LoadShedder;
  metrics: Metrics;
  /** Undefined: nobody has limits. */
  limits: KeyLimits | undefined;
  metering: Metering;
  /** Bytes. */
  bodyLimit: number;
  /** Milliseconds for all attempts on backends together, with the whole response. */
  totalMs: () => number;
  inflight: Inflight;
}

/** Passes a request of `route` on to a backend, and its response back. */
export function forward(route: Route, deps: ForwardDeps): Handler {
  return async function forwardRequest(exchange) {
    const { request, response, record } = exchange;
    record.route = route.path;
    if (deps.inflight.draining) throw stopAnswer('draining');
    if (deps.shedder.overloaded) {
      deps.metrics.shed.inc({ reason: 'event_loop' });
      throw new GatewayError('overloaded', { headers: { 'retry-after': '1' } });
    }
    // Answered before its end, which may be far: the connection is to be of use afterwards.
    if (route.body === 'upload') response.once('finish', () => request.resume());
    const body = await bodyOf(route, exchange, deps);
    // The client left; its exchange has ended already.
    if (body === undefined) return;
    record.stage = 'waiting';
    record.receivedAt = performance.now();
    const sent = upstreamRequest(route, exchange, body, deps.request);
    const only = route.sticky === undefined ? undefined : await deps.stick(route, exchange, sent);
    const settle = await deps.limits?.enter(record, sent);
    const { shaper, end } = deps.metering.open(route, record, sent);
    const closed = () => {
      end();
      settle?.();
    };
    // The client left while it was asked where its response is, or what its limits are.
    if (response.closed) return closed();
    response.once('close', closed);
    const downstream = createDownstream(request, response, route.form, ownHeaders(record), shaper);
    const totalMs = deps.totalMs();
    const deadline = performance.now() + totalMs;
    const timer = setTimeout(() => record.stop.abort('total_timeout' satisfies StopReason), totalMs);
    try {
      await deps.serve({ route, record, sent, response, downstream, deadline, only });
    } finally {
      clearTimeout(timer);
    }
  };
}

/** Undefined: the client left before the end of its body, or of what has to be known of it. */
async function bodyOf(
  route: Route,
  { request, record: { key } }: Exchange,
  { bodyLimit, request: { fleet } }: ForwardDeps,
): Promise<Buffer | Upload | null | undefined> {
  if (route.method === 'GET') return null;
  if (route.body !== 'upload') return await readBody(request, bodyLimit);
  const looksAtModel = fleet.modelsDiffer || fleet.aliases.size > 0 || key?.models !== undefined;
  if (!looksAtModel) return openUpload(request, bodyLimit);
  announcedLength(request, bodyLimit);
  const head = await readUploadHead(request, (model) => fleet.resolve(model) !== model);
  return head === undefined ? undefined : openUpload(request, bodyLimit, head);
}
