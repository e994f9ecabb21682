import type { GatewayError } from '../errors.ts';
import type { Backend } from '../fleet/backend.ts';
import type { Metrics } from '../observe/metrics.ts';
import type { StopReason } from '../observe/outcomes.ts';
import { failureAnswer, failureReason, stopAnswer } from './failure.ts';
import type { ProxiedRequest } from './proxied-request.ts';
import type { HeldAnswer, RelayEnd } from './relay.ts';

/** How a response that had begun ended, or a request that was stopped. */
export type FinalEnd = Exclude<RelayEnd, { kind: 'failed' | 'held' }>;

/**
 * Ends the response of a request that was last sent to `backend`, if to any. Throws the GatewayError to answer when a
 * request was stopped before its response had begun.
 */
export function finish(
  end: FinalEnd,
  backend: Backend | undefined,
  { record, route, response, downstream }: ProxiedRequest,
  metrics: Metrics,
): void {
  let failure: GatewayError;
  if (end.kind === 'stopped') {
    const reason = record.stop.signal.reason as StopReason;
    if (reason === 'client_left') return;
    if (reason === 'total_timeout' && backend !== undefined) {
      metrics.upstreamErrors.inc({ backend: backend.url, reason });
    }
    failure = stopAnswer(reason);
    if (!response.headersSent) throw failure;
  } else {
    if (end.kind === 'ended' && downstream.end() === 'ended') {
      if (downstream.toldStatus !== undefined) record.toldError = { status: downstream.toldStatus, first: true };
      return;
    }
    const reason = end.kind === 'broken' ? failureReason(end.error) : 'reset';
    if (backend !== undefined) metrics.upstreamErrors.inc({ backend: backend.url, reason });
    failure = failureAnswer(reason);
  }
  record.broken = true;
  metrics.brokenStreams.inc({ route: route.path, end: downstream.fail(failure) });
}

/** Sends the client an answer that was kept back for a better one. */
export function passOn(answer: HeldAnswer, backend: Backend, request: ProxiedRequest, metrics: Metrics): void {
  request.record.backend = backend.url;
  markFirstByte(request, metrics);
  request.downstream.start(answer.status, answer.head);
  request.downstream.write(answer.body);
  finish({ kind: 'ended' }, backend, request, metrics);
}

export function markFirstByte({ record, route }: ProxiedRequest, metrics: Metrics): void {
  record.stage = 'streaming';
  record.firstByteAt = performance.now();
  metrics.firstByteSeconds.observe({ route: route.path }, (record.firstByteAt - record.startedAt) / 1000);
}
