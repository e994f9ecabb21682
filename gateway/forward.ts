import type { LoadShedder } from './admission/shedding.ts';
import { stopAnswer } from './attempts/failure.ts';
import type { Serve } from './attempts/serve.ts';
import { GatewayError } from './errors.ts';
import type { Stick } from './fleet/sticky.ts';
import type { KeyLimits } from './limits/key-limits.ts';
import type { Metrics } from './observe/metrics.ts';
import type { StopReason } from './observe/outcomes.ts';
import { ownHeaders } from './observe/record.ts';
import { announcedLength, dropRest, readBody } from './request/body.ts';
import type { BodyMemory } from './request/body-memory.ts';
import { type ContentDeps, readJson, usesModel } from './request/content.ts';
import type { Exchange, Handler } from './request/exchange.ts';
import { HeldBody } from './request/held-body.ts';
import type { Inflight } from './request/inflight.ts';
import { openUpload, type Upload } from './request/upload.ts';
import { readUploadHead } from './request/upload-head.ts';
import { type UpstreamRequest, upstreamRequest } from './request/upstream-request.ts';
import { createDownstream } from './response/downstream.ts';
import type { Route } from './routes.ts';
import type { Thinking } from './thinking/thinking.ts';
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
  thinking: Thinking;
  /** Bytes. */
  bodyLimit: number;
  bodyMemory: BodyMemory;
  /** Milliseconds for all attempts on backends together, with the whole response. */
  totalMs: () => number;
  /** Milliseconds between two pings of a stream that has not begun; 0: none. */
  pingMs: () => number;
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
    // Who may not go on is not read on either.
    record.stop.signal.addEventListener('abort', () => request.complete || dropRest(request), { once: true });
    // Answered before its end, which may be far: the connection is to be of use afterwards.
    if (route.body === 'upload') response.once('finish', () => request.resume());
    const sent = await sentFor(route, exchange, deps);
    if (sent === undefined) {
      const { aborted, reason } = record.stop.signal as { aborted: boolean; reason: StopReason };
      // The client left; its exchange has ended already.
      if (!aborted || reason === 'client_left' || response.closed) return;
      throw stopAnswer(reason);
    }
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
    const guard = deps.thinking.guardFor(route, record, sent);
    const downstream = createDownstream(request, response, route.form, ownHeaders(record), shaper, guard);
    const totalMs = deps.totalMs();
    const deadline = performance.now() + totalMs;
    const timer = setTimeout(() => record.stop.abort('total_timeout' satisfies StopReason), totalMs);
    const pingMs = sent.stream ? deps.pingMs() : 0;
    const pings = pingMs === 0 ? undefined : setInterval(ping, pingMs);
    function ping() {
      if (record.firstByteAt === undefined) downstream.ping();
      else clearInterval(pings);
    }
    try {
      await deps.serve({ route, record, sent, response, downstream, deadline, only });
    } catch (error) {
      if (!(error instanceof GatewayError) || !response.headersSent) throw error;
      // Its status went out with the first ping.
      record.toldError = { status: error.status, first: true };
      downstream.fail(error);
    } finally {
      clearTimeout(timer);
      clearInterval(pings);
      if (guard?.ended !== undefined) deps.metrics.thinkingStopped.inc({ reason: guard.ended });
    }
  };
}

/**
 * Of a request that has come as far as it has to be known; undefined: the client left before. Its own function: what it
 * has in hands is let go when it returns, and a response may take an hour.
 */
async function sentFor(route: Route, exchange: Exchange, deps: ForwardDeps): Promise<UpstreamRequest | undefined> {
  const { response, record } = exchange;
  const body = await bodyOf(route, exchange, deps);
  if (body === undefined) return undefined;
  if (body instanceof HeldBody) {
    if (response.closed) body.release();
    else response.once('close', () => body.release());
  }
  record.stage = 'waiting';
  record.receivedAt = performance.now();
  const json = readJson(route, exchange, body, deps.request);
  return upstreamRequest(route, exchange, body, json instanceof Promise ? await json : json, deps.request);
}

/** Undefined: the client left before the end of its body, or of what has to be known of it. */
async function bodyOf(
  route: Route,
  { request, response, record }: Exchange,
  { bodyLimit, bodyMemory, limits, metrics, request: { fleet } }: ForwardDeps,
): Promise<HeldBody | Upload | null | undefined> {
  if (route.method === 'GET') return null;
  /** Many clients ask before they send megabytes. */
  const asks = request.headers.expect !== undefined;
  const letCome = () => {
    if (asks) response.writeContinue();
  };
  if (asks && limits !== undefined && usesModel(route)) {
    await limits.look(record);
    if (response.closed) return undefined;
  }
  if (route.body !== 'upload') {
    return await readBody(request, bodyLimit, bodyMemory, { onWanted: letCome, signal: record.stop.signal }).catch(
      (error: unknown) => {
        if (error instanceof GatewayError && error.code === 'bodies_full') metrics.shed.inc({ reason: 'body_bytes' });
        throw error;
      },
    );
  }
  const looksAtModel = fleet.modelsDiffer || fleet.aliases.size > 0 || record.key?.models !== undefined;
  announcedLength(request, bodyLimit);
  letCome();
  if (!looksAtModel) return openUpload(request, bodyLimit);
  const head = await readUploadHead(request, (model) => fleet.resolve(model) !== model);
  return head === undefined ? undefined : openUpload(request, bodyLimit, head);
}
