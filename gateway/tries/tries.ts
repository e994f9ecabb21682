import type { Response } from 'express';
import type { Admission, Place } from '../admission/admission.ts';
import { GatewayError } from '../errors.ts';
import type { Backend } from '../fleet/backend.ts';
import { PLAIN } from '../fleet/breaker.ts';
import type { Fleet, Want } from '../fleet/fleet.ts';
import { idReader, type ResponseIds } from '../fleet/response-ids.ts';
import type { Metrics } from '../observe/metrics.ts';
import type { RequestRecord, StopReason } from '../observe/record.ts';
import { mayRepeat, type UpstreamRequest } from '../request/upstream-request.ts';
import type { Downstream } from '../response/downstream.ts';
import type { Route } from '../routes.ts';
import { pause, retryAfterMs } from './backoff.ts';
import type { RetryBudget } from './budget.ts';
import { failureAnswer, failureReason } from './failure.ts';
import { type HeldAnswer, type RelayEnd, relay } from './relay.ts';
import { connectionReason, mayRetry, planRetry, type RetryReason, type RetrySettings, statusReason } from './retry.ts';

export interface TriesDeps {
  fleet: Fleet;
  admission: Admission;
  metrics: Metrics;
  budget: RetryBudget;
  retries: () => RetrySettings;
  responseIds: ResponseIds;
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
  /** The URL of the only backend that can serve it; undefined: any that serves its model. */
  only: string | undefined;
}

type Rejected = Extract<RelayEnd, { kind: 'failed' | 'held' }>;

/**
 * Makes the function that sends a request to backends until one answers, and the answer to the client. It resolves when
 * the response has ended, and throws a GatewayError when nothing was sent to the client. An answer that was kept back
 * for a retry is the client's when no better one comes.
 */
export function createTries(deps: TriesDeps): (job: Job) => Promise<void> {
  const { fleet, admission, metrics, budget } = deps;

  return async function serve(job) {
    const { route, sent, only } = job;
    const tried: Backend[] = [];
    const light = route.method === 'GET' || route.sticky === 'finds';
    const want: Want = { model: sent.model, prefixHash: sent.prefixHash, only, tried, light };
    let best: { answer: HeldAnswer; backend: Backend } | undefined;
    budget.request();
    for (;;) {
      let place: Place | undefined;
      try {
        place = await enter(want, job);
      } catch (error) {
        if (best === undefined) throw error;
        passOn(best.answer, best.backend, job);
        return;
      }
      if (place === undefined) {
        finish(tried.at(-1), job, { kind: 'stopped' });
        return;
      }
      const { backend } = place;
      tried.push(backend);
      const end = await tryBackend(place, want, job);
      if (end.kind !== 'failed' && end.kind !== 'held') {
        finish(backend, job, end);
        return;
      }
      if (end.kind === 'held') best = { answer: end.answer, backend };
      const { reason, error } = judge(end, backend, sent);
      const next = reason === undefined ? 'none' : await again(reason, backend, want, job);
      if (next === 'elapsed') continue;
      if (next === 'stopped') finish(backend, job, { kind: 'stopped' });
      else if (best !== undefined) passOn(best.answer, best.backend, job);
      else throw error;
      return;
    }
  };

  /** A place at a backend; undefined: the request was stopped while it waited for one. */
  async function enter(want: Want, { record, sent }: Job): Promise<Place | undefined> {
    const place = admission.enter({
      want,
      priority: record.priority,
      bytes: Buffer.isBuffer(sent.body) ? sent.body.length : 0,
      signal: record.stop.signal,
      onQueued() {
        record.stage = 'queued';
        record.receivedAt = undefined;
      },
    });
    if (!(place instanceof Promise)) return place;
    const given = await place;
    if (given !== undefined) record.stage = 'waiting';
    return given;
  }

  /** What a failed try means: why it may be made again, and what the client is told if it is not. */
  function judge(end: Rejected, backend: Backend, sent: UpstreamRequest) {
    if (end.kind === 'held') {
      const rest = retryAfterMs(end.answer.head.retryAfter);
      if (rest !== undefined) backend.restsUntil = performance.now() + rest;
      return { reason: statusReason(end.answer.status), error: undefined };
    }
    // Not the backend's fault: an upload that turned out to be too large.
    if (end.error instanceof GatewayError) throw end.error;
    const failure = failureReason(end.error);
    metrics.upstreamErrors.inc({ backend: backend.url, reason: failure });
    return {
      reason: mayRepeat(sent) ? connectionReason(failure) : undefined,
      error: failureAnswer(failure, end.error),
    };
  }

  /** Waits for the time of the next try; `none` when there is to be none. */
  async function again(reason: RetryReason, backend: Backend, want: Want, job: Job) {
    const now = performance.now();
    const another = fleet.hasAnother(want);
    const plan = planRetry(
      {
        reason,
        tries: want.tried.length,
        another,
        restMs: Math.max(0, Math.min(...want.tried.map(({ restsUntil }) => restsUntil)) - now),
        leftMs: job.deadline - now,
      },
      deps.retries(),
      budget,
    );
    if (plan.kind === 'give_up') {
      if (plan.denied !== undefined) metrics.retriesDenied.inc({ reason: plan.denied });
      return 'none';
    }
    metrics.retries.inc({ backend: backend.url, reason });
    if (another) metrics.failovers.inc({ backend: backend.url });
    if (plan.waitMs === 0) return 'elapsed';
    job.record.stage = 'backoff';
    const end = await pause(plan.waitMs, job.record.stop.signal);
    if (end === 'elapsed') job.record.stage = 'waiting';
    return end;
  }

  async function tryBackend({ backend, passage }: Place, want: Want, job: Job): Promise<RelayEnd> {
    const { record, route, sent, response, downstream } = job;
    const { breaker, url } = backend;
    let judged = false;
    let tap: ((chunk: Buffer) => void) | undefined;
    record.backend = url;
    if (record.receivedAt !== undefined) {
      metrics.addedSeconds.observe((performance.now() - record.receivedAt) / 1000);
      record.receivedAt = undefined;
    }
    const note = (good: boolean) => {
      if (good) breaker.succeed(judged ? PLAIN : passage);
      else if (breaker.fail(judged ? PLAIN : passage)) metrics.breakerOpened.inc({ backend: url });
      judged = true;
    };
    try {
      const end = await relay({
        backend,
        sent,
        response,
        downstream,
        signal: record.stop.signal,
        hold(status) {
          const reason = statusReason(status);
          if (reason === undefined || !mayRepeat(sent)) return false;
          return mayRetry({ reason, tries: want.tried.length, another: fleet.hasAnother(want) }, deps.retries());
        },
        onStatus(status) {
          note(!isFailure(status));
          if (route.sticky === 'makes' && status === 200) {
            tap = idReader((id) => deps.responseIds.remember(id, { backend: url, key: record.key?.id }));
          }
        },
        onData: (chunk) => tap?.(chunk),
        onFirstByte: () => markFirstByte(job),
      });
      const broke = end.kind === 'broken' || end.kind === 'failed';
      if (broke && !(end.error instanceof GatewayError)) note(false);
      return end;
    } finally {
      if (!judged) breaker.forget(passage);
      admission.leave(backend);
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
  function finish(backend: Backend | undefined, job: Job, end: Exclude<RelayEnd, { kind: 'failed' | 'held' }>): void {
    const { record, route, response, downstream } = job;
    let failure: GatewayError;
    if (end.kind === 'stopped') {
      const reason = record.stop.signal.reason as StopReason;
      if (reason === 'client_left') return;
      if (reason === 'total_timeout' && backend !== undefined) {
        metrics.upstreamErrors.inc({ backend: backend.url, reason });
      }
      failure = stopped(reason);
      if (!response.headersSent) throw failure;
    } else {
      if (end.kind === 'ended' && downstream.end() === 'ended') return;
      const reason = end.kind === 'broken' ? failureReason(end.error) : 'reset';
      if (backend !== undefined) metrics.upstreamErrors.inc({ backend: backend.url, reason });
      failure = failureAnswer(reason);
    }
    record.broken = true;
    metrics.brokenStreams.inc({ route: route.path, end: downstream.fail(failure) });
  }
}

/** A status that says that the backend is in trouble, not the request. 501: it does not know the path. */
function isFailure(status: number): boolean {
  return status >= 500 && status !== 501;
}

/** The answer to a request that the gateway stops itself. */
export function stopped(reason: Exclude<StopReason, 'client_left'>): GatewayError {
  if (reason === 'total_timeout') return failureAnswer('total_timeout');
  return new GatewayError('draining', { headers: { 'retry-after': '1', connection: 'close' } });
}
