import {
  type Counts,
  type Limiter,
  type LimitName,
  type Limits,
  RETRY_RUNNING_MS,
  WINDOWS,
  type Windows,
} from './limiter.ts';

interface Slice {
  requests: number;
  tokens: number;
}

interface State {
  /** By number since 1970, oldest first. */
  slices: Map<number, Slice>;
  day: number;
  tokensToday: number;
  running: Set<string>;
  reserved: number;
}

/** Counters of one process. `now` is in milliseconds since 1970. What runs here ends here, so leases need no renewal. */
export function createMemoryLimiter(windows: Windows = WINDOWS, now: () => number = Date.now): Limiter {
  const states = new Map<string, State>();

  const stateOf = (key: string, at: number): State => {
    let state = states.get(key);
    if (state === undefined) {
      state = { slices: new Map(), day: dayOf(at), tokensToday: 0, running: new Set(), reserved: 0 };
      states.set(key, state);
    }
    for (const number of state.slices.keys()) if (sliceEnd(number) <= at) state.slices.delete(number);
    if (state.day !== dayOf(at)) {
      state.day = dayOf(at);
      state.tokensToday = 0;
    }
    return state;
  };
  const dayOf = (at: number) => Math.floor(at / windows.day);
  /** When a slice no longer counts: when all of it is a minute ago. */
  const sliceEnd = (number: number) => (number + 1 + windows.slices) * windows.slice;
  const sliceOf = (state: State, at: number): Slice => {
    const number = Math.floor(at / windows.slice);
    let slice = state.slices.get(number);
    if (slice === undefined) {
      slice = { requests: 0, tokens: 0 };
      state.slices.set(number, slice);
    }
    return slice;
  };

  /** Milliseconds until at most `most` of a kind are left. */
  const untilAtMost = (state: State, kind: keyof Slice, most: number, at: number): number => {
    let sum = total(state, kind);
    for (const [number, slice] of state.slices) {
      if (sum <= most) break;
      sum -= slice[kind];
      if (sum <= most) return sliceEnd(number) - at;
    }
    return 0;
  };

  const countsOf = (state: State, at: number): Counts => ({
    requests: total(state, 'requests'),
    tokens: total(state, 'tokens'),
    tokensToday: state.tokensToday,
    reserved: state.reserved,
    running: state.running.size,
    requestsResetMs: untilAtMost(state, 'requests', 0, at),
    tokensResetMs: untilAtMost(state, 'tokens', 0, at),
  });

  const refusal = (state: State, limits: Limits, at: number): { limit: LimitName; retryMs: number } | undefined => {
    const { requestsPerMinute, tokensPerMinute, concurrentRequests, tokensPerDay } = limits;
    const { tokensToday, reserved, running } = state;
    if (tokensPerDay !== undefined && tokensToday + reserved >= tokensPerDay) {
      const retryMs = tokensToday >= tokensPerDay ? (state.day + 1) * windows.day - at : RETRY_RUNNING_MS;
      return { limit: 'tokens_per_day', retryMs };
    }
    if (concurrentRequests !== undefined && running.size >= concurrentRequests) {
      return { limit: 'concurrent_requests', retryMs: RETRY_RUNNING_MS };
    }
    if (requestsPerMinute !== undefined && total(state, 'requests') >= requestsPerMinute) {
      return { limit: 'requests_per_minute', retryMs: untilAtMost(state, 'requests', requestsPerMinute - 1, at) };
    }
    if (tokensPerMinute !== undefined && total(state, 'tokens') + reserved >= tokensPerMinute) {
      const wait = untilAtMost(state, 'tokens', tokensPerMinute - 1, at);
      return { limit: 'tokens_per_minute', retryMs: wait === 0 ? RETRY_RUNNING_MS : wait };
    }
    return undefined;
  };

  const add = (key: string, tokens: number) => {
    const at = now();
    const state = stateOf(key, at);
    if (tokens > 0) sliceOf(state, at).tokens += tokens;
    state.tokensToday += tokens;
  };

  return {
    async admit({ key, id, reserve }, limits) {
      const at = now();
      const state = stateOf(key, at);
      const refused = refusal(state, limits, at);
      if (refused !== undefined) return { kind: 'refused', ...refused, counts: countsOf(state, at) };
      sliceOf(state, at).requests++;
      state.running.add(id);
      state.reserved += reserve;
      return { kind: 'admitted', counts: countsOf(state, at) };
    },
    async settle({ key, id, reserve }, tokens) {
      const state = states.get(key);
      if (state?.running.delete(id)) state.reserved -= reserve;
      add(key, tokens);
    },
    charge: async (key, tokens) => add(key, tokens),
    async renew() {},
  };
}

function total(state: State, kind: keyof Slice): number {
  let sum = 0;
  for (const slice of state.slices.values()) sum += slice[kind];
  return sum;
}
