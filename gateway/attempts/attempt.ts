import type { Admission, Slot } from '../admission/admission.ts';
import { GatewayError } from '../errors.ts';
import { PLAIN } from '../fleet/breaker.ts';
import { idReader, type ResponseIds } from '../fleet/response-ids.ts';
import type { Metrics } from '../observe/metrics.ts';
import { HeldBody } from '../request/held-body.ts';
import { XARGS } from '../request/json-body.ts';
import { mayRepeat } from '../request/upstream-request.ts';
import { markFirstByte } from './ending.ts';
import type { ProxiedRequest } from './proxied-request.ts';
import { type RelayEnd, relay } from './relay.ts';
import { type RetryReason, statusReason } from './retry.ts';
import { createErrorWatch, type ErrorWatch, isServersFault } from './told-error.ts';

/** Statuses by which a server says what is wrong with a request, or that it is busy. */
const OF_THE_REQUEST: ReadonlySet<number> = new Set([400, 408, 409, 413, 415, 422, 429]);

/** Statuses by which servers refuse a member that they do not know. */
const REFUSALS: ReadonlySet<number> = new Set([400, 422]);

export interface AttemptDeps {
  admission: Admission;
  metrics: Metrics;
  responseIds: ResponseIds;
}

/** One attempt on one backend: the slot is given up when it has ended. Never rejects. */
export type Attempt = (
  slot: Slot,
  request: ProxiedRequest,
  /** Whether an answer that means this is worth keeping back. */
  worthRetry: (reason: RetryReason) => boolean,
) => Promise<RelayEnd>;

/** Sends a request to the backend of its slot, its answer to the client, and tells the breaker what it saw. */
export function createAttempt({ admission, metrics, responseIds }: AttemptDeps): Attempt {
  return async function attempt({ backend, permit }, request, worthRetry) {
    const { record, route, sent, response, downstream } = request;
    const { breaker, url } = backend;
    let judged = false;
    let tap: ((chunk: Buffer) => void) | undefined;
    let watch: ErrorWatch | undefined;
    record.backend = url;
    if (record.receivedAt !== undefined) {
      metrics.addedSeconds.observe((performance.now() - record.receivedAt) / 1000);
      record.receivedAt = undefined;
    }
    const judge = (good: boolean) => {
      if (good) breaker.succeed(judged ? PLAIN : permit);
      else if (breaker.fail(judged ? PLAIN : permit)) metrics.breakerOpened.inc({ backend: url });
      judged = true;
    };
    /** A server that is not vLLM may refuse what the gateway adds. */
    const mayRefuse = () =>
      backend.xargs === 'unknown' && sent.body instanceof HeldBody && sent.body.hasPlain && mayRepeat(sent);
    const send = () =>
      relay({
        backend,
        sent,
        response,
        downstream,
        signal: record.stop.signal,
        hold(status) {
          if (REFUSALS.has(status) && mayRefuse()) return true;
          const reason = statusReason(status);
          return reason !== undefined && mayRepeat(sent) && worthRetry(reason);
        },
        onStatus(status, head) {
          if (status === 200 && mayRefuse()) backend.sawXargs('taken');
          // A stream may begin with an error: its first event tells.
          if (status === 200 && head.eventStream) watch = createErrorWatch(route.form);
          else judge(!isFailure(status));
          if (isRefusal(status) && sent.costs) backend.refused();
          if (route.sticky === 'makes' && status === 200) {
            tap = idReader((id) => responseIds.remember(id, { backend: url, key: record.key?.id }));
          }
        },
        onData(chunk) {
          tap?.(chunk);
          if (watch === undefined) return;
          watch.see(chunk);
          if (!judged && watch.first !== 'open') judge(watch.told === undefined || !isServersFault(watch.told));
        },
        onFirstByte: () => markFirstByte(request, metrics),
      });
    try {
      const first = await send();
      const refused = first.kind === 'held' && REFUSALS.has(first.answer.status) && first.answer.body.includes(XARGS);
      if (refused && mayRefuse()) backend.sawXargs('refused');
      const end = refused && backend.xargs === 'refused' ? await send() : first;
      const broke = end.kind === 'broken' || end.kind === 'failed';
      if (broke && !(end.error instanceof GatewayError)) judge(false);
      else if (watch?.first === 'open') judge(true);
      record.toldError = watch?.told;
      return end;
    } finally {
      if (!judged) breaker.forget(permit);
      admission.leave(backend);
    }
  };
}

/** The body is not why: with another credential, or at another server, the request may be good. */
function isRefusal(status: number): boolean {
  return status >= 300 && status < 500 && !OF_THE_REQUEST.has(status);
}

/** A status that says that the backend is in trouble, not the request. 501: it does not know the path. */
function isFailure(status: number): boolean {
  return status >= 500 && status !== 501;
}
