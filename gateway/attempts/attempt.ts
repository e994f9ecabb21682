import type { Admission, Slot } from '../admission/admission.ts';
import { GatewayError } from '../errors.ts';
import { PLAIN } from '../fleet/breaker.ts';
import { idReader, type ResponseIds } from '../fleet/response-ids.ts';
import type { Metrics } from '../observe/metrics.ts';
import { mayRepeat } from '../request/upstream-request.ts';
import { markFirstByte } from './ending.ts';
import type { ProxiedRequest } from './proxied-request.ts';
import { type RelayEnd, relay } from './relay.ts';
import { type RetryReason, statusReason } from './retry.ts';

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
    try {
      const end = await relay({
        backend,
        sent,
        response,
        downstream,
        signal: record.stop.signal,
        hold(status) {
          const reason = statusReason(status);
          return reason !== undefined && mayRepeat(sent) && worthRetry(reason);
        },
        onStatus(status) {
          judge(!isFailure(status));
          if (route.sticky === 'makes' && status === 200) {
            tap = idReader((id) => responseIds.remember(id, { backend: url, key: record.key?.id }));
          }
        },
        onData: (chunk) => tap?.(chunk),
        onFirstByte: () => markFirstByte(request, metrics),
      });
      const broke = end.kind === 'broken' || end.kind === 'failed';
      if (broke && !(end.error instanceof GatewayError)) judge(false);
      return end;
    } finally {
      if (!judged) breaker.forget(permit);
      admission.leave(backend);
    }
  };
}

/** A status that says that the backend is in trouble, not the request. 501: it does not know the path. */
function isFailure(status: number): boolean {
  return status >= 500 && status !== 501;
}
