import { type Sample, total } from '../../scripts/metrics/text.ts';
import type { Ended } from './client.ts';

/** What the load generator saw, by its own count. */
export interface Tally {
  sent: number;
  left: number;
  told: number;
  reset: number;
  /** Requests that no working backend got, because there was no retry left for them. */
  unreachable: number;
  /** Answers that came whole or broke off after their head, by status. */
  statuses: Map<number, number>;
}

export const emptyTally = (): Tally => ({ sent: 0, left: 0, told: 0, reset: 0, unreachable: 0, statuses: new Map() });

export function count(tally: Tally, end: { kind: 'left' } | Pick<Ended, 'kind' | 'status'>): void {
  tally.sent += 1;
  if (end.kind === 'left') {
    tally.left += 1;
    return;
  }
  if (end.kind !== 'complete') tally[end.kind] += 1;
  tally.statuses.set(end.status, (tally.statuses.get(end.status) ?? 0) + 1);
}

const NAME = {
  requests: 'crystalkv_gateway_requests_total',
  aborts: 'crystalkv_gateway_client_aborts_total',
  broken: 'crystalkv_gateway_broken_streams_total',
  denied: 'crystalkv_gateway_retries_denied_total',
  inflight: 'crystalkv_gateway_inflight',
  outstanding: 'crystalkv_gateway_backend_outstanding',
} as const;

/**
 * Where the gateway's metrics and the tally disagree; one line each. A client that leaves may do so just when the gateway
 * has sent the last byte: such a request counts as answered there, so those that left are the only slack.
 */
export function disagreements(tally: Tally, samples: readonly Sample[]): string[] {
  const problems: string[] = [];
  const equal = (what: string, theirs: number, ours: number) => {
    if (theirs !== ours) problems.push(`${what}: the gateway counted ${theirs}, the load generator ${ours}`);
  };
  const requests = total(samples, NAME.requests);
  const aborts = total(samples, NAME.aborts);
  equal('requests', requests, tally.sent);
  equal(
    'requests that left, by outcome and by stage',
    total(samples, NAME.requests, { outcome: 'client_abort' }),
    aborts,
  );
  if (aborts > tally.left) problems.push(`aborts: the gateway counted ${aborts}, only ${tally.left} clients left`);
  let slack = tally.left - aborts;
  const statuses = new Set([
    ...tally.statuses.keys(),
    ...samples.filter(({ name }) => name === NAME.requests).map(({ labels }) => Number(labels['status'])),
  ]);
  for (const status of statuses) {
    const labels = { status: `${status}` };
    const answered =
      total(samples, NAME.requests, labels) - total(samples, NAME.requests, { ...labels, outcome: 'client_abort' });
    const seen = tally.statuses.get(status) ?? 0;
    const more = answered - seen;
    if (more < 0 || more > slack)
      problems.push(`status ${status}: the gateway counted ${answered}, clients saw ${seen}`);
    else slack -= more;
  }
  for (const end of ['told', 'reset'] as const) {
    const theirs = total(samples, NAME.broken, { end });
    // A stream that was cut while its client left.
    if (theirs < tally[end] || theirs > tally[end] + (tally.left - aborts))
      equal(`responses that were ${end}`, theirs, tally[end]);
  }
  const denied = total(samples, NAME.denied);
  if (tally.unreachable > denied) {
    problems.push(
      `${tally.unreachable} clients got nothing from a working backend, only ${denied} retries were denied`,
    );
  }
  equal('requests in flight at the end', total(samples, NAME.inflight), 0);
  equal('requests at backends at the end', total(samples, NAME.outstanding), 0);
  return problems;
}
