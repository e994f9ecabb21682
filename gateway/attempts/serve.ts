import { pause } from '../../common/time.ts';
import type { Admission, Slot } from '../admission/admission.ts';
import { GatewayError } from '../errors.ts';
import type { Backend } from '../fleet/backend.ts';
import type { Demand, Fleet } from '../fleet/fleet.ts';
import type { ResponseIds } from '../fleet/response-ids.ts';
import { wasReused } from '../fleet/reused.ts';
import type { Metrics } from '../observe/metrics.ts';
import { HeldBody } from '../request/held-body.ts';
import { mayRepeat, type UpstreamRequest } from '../request/upstream-request.ts';
import { createAttempt } from './attempt.ts';
import type { RetryBudget } from './budget.ts';
import { finish, passOn } from './ending.ts';
import { failureAnswer, failureReason } from './failure.ts';
import type { ProxiedRequest } from './proxied-request.ts';
import type { HeldAnswer, RelayEnd } from './relay.ts';
import { connectionReason, mayRetry, planRetry, type RetryReason, type RetrySettings, statusReason } from './retry.ts';
import { retryAfterMs } from './retry-after.ts';

export interface ServeDeps {
  fleet: Fleet;
  admission: Admission;
  metrics: Metrics;
  budget: RetryBudget;
  retries: () => RetrySettings;
  responseIds: ResponseIds;
}

/** A server closes an idle connection just when a request is sent on it, or a moment before. */
const STALE_MS = 1_000;

/** Whether a connection was lost that had served other requests, and too soon for this one to have done much. */
function isStale(end: RelayEnd, sentAt: number): boolean {
  return end.kind === 'failed' && wasReused(end.error) && performance.now() - sentAt < STALE_MS;
}

/**
 * Sends a request to backends until one answers, and the answer to the client. It resolves when the response has ended,
 * and throws a GatewayError when nothing was sent to the client. An answer that was kept back for a retry is the client's
 * when no better one comes.
 */
export type Serve = (request: ProxiedRequest) => Promise<void>;

export function createServe(deps: ServeDeps): Serve {
  const { fleet, admission, metrics, budget } = deps;
  const attempt = createAttempt(deps);

  return async function serve(request) {
    const { route, sent, only } = request;
    const tried: Backend[] = [];
    const light = route.method === 'GET' || route.sticky === 'finds';
    const demand: Demand = { model: sent.model, prefixHash: sent.prefixHash, only, tried, light };
    const worthRetry = (reason: RetryReason) =>
      mayRetry({ reason, attempts: tried.length, another: fleet.hasAnother(demand) }, deps.retries());
    let best: { answer: HeldAnswer; backend: Backend } | undefined;
    budget.request();
    for (;;) {
      let slot: Slot | undefined;
      try {
        slot = await enter(demand, request);
      } catch (error) {
        if (best === undefined) throw error;
        passOn(best.answer, best.backend, request, metrics);
        return;
      }
      if (slot === undefined) {
        finish({ kind: 'stopped' }, tried.at(-1), request, metrics);
        return;
      }
      const { backend } = slot;
      tried.push(backend);
      const sentAt = performance.now();
      const end = await attempt(slot, request, worthRetry);
      if (end.kind !== 'failed' && end.kind !== 'held') {
        finish(end, backend, request, metrics);
        return;
      }
      if (end.kind === 'held') best = { answer: end.answer, backend };
      const { reason, error } = judge(end, backend, sent);
      // What lost its connection may have begun: the next server must not get what may have ended this one.
      const isLast = demand.again !== undefined;
      if (reason === 'reset' && sent.method !== 'GET') demand.again = backend;
      const mayFollow = reason !== undefined && !isLast && (demand.again === undefined || isStale(end, sentAt));
      const next = mayFollow ? await again(reason, backend, demand, request) : 'none';
      if (next === 'elapsed') continue;
      if (next === 'stopped') finish({ kind: 'stopped' }, backend, request, metrics);
      else if (best !== undefined) passOn(best.answer, best.backend, request, metrics);
      else throw error;
      return;
    }
  };

  /** A slot at a backend; undefined: the request was stopped while it waited for one. */
  async function enter(demand: Demand, { record, sent }: ProxiedRequest): Promise<Slot | undefined> {
    const slot = admission.enter({
      demand,
      priority: record.priority,
      bytes: sent.body instanceof HeldBody ? sent.body.length : 0,
      signal: record.stop.signal,
      onQueued() {
        record.stage = 'queued';
        record.receivedAt = undefined;
      },
    });
    if (!(slot instanceof Promise)) return slot;
    const given = await slot;
    if (given !== undefined) record.stage = 'waiting';
    return given;
  }

  /** What a failed attempt means: why there may be another, and what the client is told if there is none. */
  function judge(end: Extract<RelayEnd, { kind: 'failed' | 'held' }>, backend: Backend, sent: UpstreamRequest) {
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

  /** Waits for the time of the next attempt; `none` when there is to be none. */
  async function again(reason: RetryReason, backend: Backend, demand: Demand, { record, deadline }: ProxiedRequest) {
    const now = performance.now();
    const another = demand.again === undefined && fleet.hasAnother(demand);
    const plan = planRetry(
      {
        stale: demand.again !== undefined,
        reason,
        attempts: demand.tried.length,
        another,
        restMs: Math.max(0, Math.min(...demand.tried.map(({ restsUntil }) => restsUntil)) - now),
        leftMs: deadline - now,
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
    record.stage = 'backoff';
    const end = await pause(plan.waitMs, record.stop.signal);
    if (end === 'elapsed') record.stage = 'waiting';
    return end;
  }
}
