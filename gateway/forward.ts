import type { RequestHandler, Response } from 'express';
import type { Backend, Backends } from './backends.ts';
import { readBody } from './body.ts';
import { createDownstream, type Downstream } from './downstream.ts';
import { GatewayError } from './errors.ts';
import type { Metrics } from './metrics.ts';
import type { CrystalKvOption } from './options.ts';
import { ownHeaders, type RequestRecord, recordOf, type StopReason } from './record.ts';
import { type RelayEnd, relay } from './relay.ts';
import type { Route } from './routes.ts';
import { failureAnswer, failureReason, mayTryAnother } from './upstream-failure.ts';
import { type UpstreamRequest, upstreamRequest } from './upstream-request.ts';

export interface ForwardDeps {
  backends: Backends;
  metrics: Metrics;
  parseOption: (value: unknown) => CrystalKvOption;
  /** Bytes. */
  bodyLimit: number;
  /** For all tries on backends together, with the whole response. */
  totalMs: number;
  draining: () => boolean;
}

/** Tries on different backends for one request: the first, and one more when that cannot be reached. */
const MAX_TRIES = 2;

/** Passes a request of `route` on to a backend, and its response back. */
export function forward(route: Route, deps: ForwardDeps): RequestHandler {
  const { backends, metrics } = deps;

  return async function forwardRequest(request, response) {
    const record = recordOf(response);
    record.route = route.path;
    if (deps.draining()) throw stopped('draining');
    const body = route.method === 'GET' ? null : await readBody(request, deps.bodyLimit);
    // The client left; its record is closed already.
    if (body === undefined) return;
    record.stage = 'waiting';
    const sent = upstreamRequest(route, record, request, body, deps.parseOption);
    const downstream = createDownstream(request, response, route.form, ownHeaders(record));
    const timer = setTimeout(() => record.stop.abort('total_timeout' satisfies StopReason), deps.totalMs);
    try {
      await tryBackends(record, sent, response, downstream);
    } finally {
      clearTimeout(timer);
    }
  };

  async function tryBackends(
    record: RequestRecord,
    sent: UpstreamRequest,
    response: Response,
    downstream: Downstream,
  ): Promise<void> {
    const tried: Backend[] = [];
    for (;;) {
      const backend = backends.pick(tried);
      if (backend === undefined) throw failureAnswer('connect');
      tried.push(backend);
      const end = await tryBackend(backend, record, sent, response, downstream);
      if (end.kind !== 'failed') {
        finish(backend, record, response, downstream, end);
        return;
      }
      const reason = failureReason(end.error);
      metrics.upstreamErrors.inc({ backend: backend.url, reason });
      const another = tried.length < MAX_TRIES && tried.length < backends.all.length;
      if (!another || !mayTryAnother(reason)) throw failureAnswer(reason, end.error);
      metrics.failovers.inc({ backend: backend.url });
    }
  }

  async function tryBackend(
    backend: Backend,
    record: RequestRecord,
    sent: UpstreamRequest,
    response: Response,
    downstream: Downstream,
  ): Promise<RelayEnd> {
    const onFirstByte = () => {
      record.stage = 'streaming';
      record.firstByteAt = performance.now();
      metrics.firstByteSeconds.observe({ route: route.path }, (record.firstByteAt - record.startedAt) / 1000);
    };
    record.backend = backend.url;
    backend.outstanding++;
    try {
      return await relay(backend, sent, response, downstream, record.stop.signal, onFirstByte);
    } finally {
      backend.outstanding--;
    }
  }

  /** The end of a response that had begun, or of a request that was stopped. */
  function finish(
    backend: Backend,
    record: RequestRecord,
    response: Response,
    downstream: Downstream,
    end: Exclude<RelayEnd, { kind: 'failed' }>,
  ): void {
    let failure: GatewayError;
    if (end.kind === 'stopped') {
      const reason = record.stop.signal.reason as StopReason;
      if (reason === 'client_left') return;
      if (reason === 'total_timeout') metrics.upstreamErrors.inc({ backend: backend.url, reason });
      failure = stopped(reason);
      if (!response.headersSent) throw failure;
    } else {
      if (end.kind === 'ended' && downstream.end() === 'ended') return;
      const reason = end.kind === 'broken' ? failureReason(end.error) : 'reset';
      metrics.upstreamErrors.inc({ backend: backend.url, reason });
      failure = failureAnswer(reason);
    }
    record.broken = true;
    metrics.brokenStreams.inc({ route: route.path, end: downstream.fail(failure) });
  }
}

function stopped(reason: Exclude<StopReason, 'client_left'>): GatewayError {
  if (reason === 'total_timeout') return failureAnswer('total_timeout');
  return new GatewayError('draining', { headers: { 'retry-after': '1', connection: 'close' } });
}
