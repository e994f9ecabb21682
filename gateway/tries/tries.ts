import type { Response } from 'express';
import type { Downstream } from '../downstream.ts';
import { GatewayError } from '../errors.ts';
import type { Backend } from '../fleet/backend.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { Metrics } from '../metrics.ts';
import type { RequestRecord, StopReason } from '../record.ts';
import type { Route } from '../routes.ts';
import { mayRepeat, type UpstreamRequest } from '../upstream-request.ts';
import { pause, retryAfterMs } from './backoff.ts';
import type { RetryBudget } from './budget.ts';
import { failureAnswer, failureReason } from './failure.ts';
import { type HeldAnswer, type RelayEnd, relay } from './relay.ts';
import { connectionReason, mayRetry, planRetry, type RetryReason, type RetrySettings, statusReason } from './retry.ts';

export interface TriesDeps {
  fleet: Fleet;
  metrics: Metrics;
  budget: RetryBudget;
  retries: () => RetrySettings;
}

/** A request that is ready to be sent. */
export interface Job {
  route: Route;
  record: RequestRecord;
  sent: UpstreamRequest;
  response: Response;
  downstream: Downstream;
  /** When its total time ends, in `performance.now()`. */
  deadline: number;
}

/**
 * Makes the function that sends a request to backends until one answers, and the answer to the client. It resolves when
 * the response has ended, and throws a GatewayError when nothing was sent to the client. An answer that was kept back
 * for a retry is the client's when no better one comes.
 */
export function createTries(deps: TriesDeps): (job: Job) => Promise<void> {
  const { fleet, metrics, budget } = deps;

  return async function serve(job) {
    const tried: Backend[] = [];
    let best: { answer: HeldAnswer; backend: Backend } | undefined;
    budget.request();
    for (;;) {
      const backend = fleet.pick({ model: job.sent.model, tried });
      if (backend === undefined) throw failureAnswer('connect');
      tried.push(backend);
      const end = await tryBackend(backend, job, tried);
      if (end.kind !== 'failed' && end.kind !== 'held') {
        finish(backend, job, end);
        return;
      }
      let reason: RetryReason | undefined;
      let error: GatewayError | undefined;
      if (end.kind === 'held') {
        best = { answer: end.answer, backend };
        reason = statusReason(end.answer.status);
        const rest = retryAfterMs(end.answer.head.retryAfter);
        if (rest !== undefined) backend.restsUntil = performance.now() + rest;
      } else {
        // Not the backend's fault: an upload that turned out to be too large.
        if (end.error instanceof GatewayError) throw end.error;
        const failure = failureReason(end.error);
        metrics.upstreamErrors.inc({ backend: backend.url, reason: failure });
        reason = mayRepeat(job.sent) ? connectionReason(failure) : undefined;
        error = failureAnswer(failure, end.error);
      }
      const stopped = reason !== undefined && (await again(reason, backend, tried, job));
      if (stopped === 'elapsed') continue;
      if (stopped === 'stopped') finish(backend, job, { kind: 'stopped' });
      else if (best !== undefined) passOn(best.answer, best.backend, job);
      else throw error;
      return;
    }
  };

  /** Waits for the time of the next try; false when there is to be none. */
  async function again(reason: RetryReason, backend: Backend, tried: readonly Backend[], job: Job) {
    const now = performance.now();
    const another = hasAnother(tried);
    const plan = planRetry(
      {
        reason,
        tries: tried.length,
        another,
        restMs: Math.max(0, Math.min(...tried.map(({ restsUntil }) => restsUntil)) - now),
        leftMs: job.deadline - now,
      },
      deps.retries(),
      budget,
    );
    if (plan.kind === 'give_up') {
      if (plan.denied !== undefined) metrics.retriesDenied.inc({ reason: plan.denied });
      return false;
    }
    metrics.retries.inc({ backend: backend.url, reason });
    if (another) metrics.failovers.inc({ backend: backend.url });
    if (plan.waitMs === 0) return 'elapsed';
    job.record.stage = 'backoff';
    const end = await pause(plan.waitMs, job.record.stop.signal);
    job.record.stage = 'waiting';
    return end;
  }

  function hasAnother(tried: readonly Backend[]): boolean {
    return fleet.all.some((candidate) => !tried.includes(candidate));
  }

  async function tryBackend(backend: Backend, job: Job, tried: readonly Backend[]): Promise<RelayEnd> {
    const { record, sent, response, downstream } = job;
    record.backend = backend.url;
    backend.begin();
    try {
      return await relay({
        backend,
        sent,
        response,
        downstream,
        signal: record.stop.signal,
        hold(status) {
          const reason = statusReason(status);
          if (reason === undefined || !mayRepeat(sent)) return false;
          return mayRetry({ reason, tries: tried.length, another: hasAnother(tried) }, deps.retries());
        },
        onStatus() {},
        onFirstByte: () => markFirstByte(job),
      });
    } finally {
      backend.end();
    }
  }

  function markFirstByte({ record, route }: Job): void {
    record.stage = 'streaming';
    record.firstByteAt = performance.now();
    metrics.firstByteSeconds.observe({ route: route.path }, (record.firstByteAt - record.startedAt) / 1000);
  }

  function passOn({ status, head, body }: HeldAnswer, backend: Backend, job: Job): void {
    job.record.backend = backend.url;
    markFirstByte(job);
    job.downstream.start(status, head);
    job.downstream.write(body);
    finish(backend, job, { kind: 'ended' });
  }

  /** The end of a response that had begun, or of a request that was stopped. */
  function finish(backend: Backend, job: Job, end: Exclude<RelayEnd, { kind: 'failed' | 'held' }>): void {
    const { record, route, response, downstream } = job;
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

/** The answer to a request that the gateway stops itself. */
export function stopped(reason: Exclude<StopReason, 'client_left'>): GatewayError {
  if (reason === 'total_timeout') return failureAnswer('total_timeout');
  return new GatewayError('draining', { headers: { 'retry-after': '1', connection: 'close' } });
}
