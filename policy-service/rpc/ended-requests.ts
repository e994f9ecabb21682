import type { RequestState as RequestMessage } from '../../proto/gen/crystalkv/v1/policy.ts';

/** Gateways ask at once, people a little later. */
const KEEP_MS = 30_000;
const MAX_REQUESTS = 2_048;

/** The last states of requests that have ended, for `GetRequest`: the newest 2,048, for 30 s each. */
export interface EndedRequests {
  add(state: RequestMessage): void;
  get(crystalkvId: string, choiceIndex: number): RequestMessage | undefined;
}

/** `now` is in milliseconds. Keep values and masses, which are long, are left out. */
export function createEndedRequests(now: () => number = () => performance.now()): EndedRequests {
  const ended = new Map<string, { state: RequestMessage; until: number }>();
  const keyOf = (crystalkvId: string, choiceIndex: number) => `${choiceIndex} ${crystalkvId}`;
  return {
    add(state) {
      const key = keyOf(state.crystalkvId, state.choiceIndex);
      // Inserted again, so that the order is by age.
      ended.delete(key);
      ended.set(key, { state: { ...state, keepValues: [], probeMasses: [], ended: true }, until: now() + KEEP_MS });
      for (const [oldest, { until }] of ended) {
        if (ended.size <= MAX_REQUESTS && until > now()) break;
        ended.delete(oldest);
      }
    },
    get(crystalkvId, choiceIndex) {
      const found = ended.get(keyOf(crystalkvId, choiceIndex));
      return found !== undefined && found.until > now() ? found.state : undefined;
    },
  };
}
