import {
  type Counts,
  type Limiter,
  type LimitName,
  type Limits,
  MAX_RESERVE,
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
  /** Tokens by day since 1970; those of the last days are kept, in case the clock goes back again. */
  days: Map<number, number>;
  /** Tokens that each reserved. */
  running: Map<string, number>;
  reserved: number;
}

const KEPT_DAYS = 2;

/** Counters of one process. `now` is in milliseconds since 1970. What runs here ends here, so leases need no renewal. */
export function createMemoryLimiter(windows: Windows = WINDOWS, now: () => number = Date.now): Limiter {
  const states = new Map<string, State>();

  const stateOf = (key: string, at: number): State => {
    let state = states.get(key);
    if (state === undefined) {
      state = { slices: new Map(), days: new Map(), running: new Map(), reserved: 0 };
      states.set(key, state);
    }
    for (const number of state.slices.keys()) if (sliceEnd(number) <= at) state.slices.delete(number);
    for (const number of state.days.keys()) if (number < dayOf(at) - KEPT_DAYS) state.days.delete(number);
    // The clock has gone back: what was counted ahead of it counts as of now.
    for (const [number, slice] of state.slices) {
      if (number <= sliceNumber(at)) continue;
      state.slices.delete(number);
      const now = sliceOf(state, at);
      now.requests += slice.requests;
      now.tokens += slice.tokens;
    }
    for (const [number, tokens] of state.days) {
      if (number <= dayOf(at)) continue;
      state.days.delete(number);
      spend(state, at, tokens);
    }
    return state;
  };
  const tokensToday = (state: State, at: number) => state.days.get(dayOf(at)) ?? 0;
  const spend = (state: State, at: number, tokens: number) => {
    state.days.set(dayOf(at), tokensToday(state, at) + tokens);
  };
  const dayOf = (at: number) => Math.floor(at / windows.day);
  /** When a slice no longer counts: when all of it is a minute ago. */
  const sliceEnd = (number: number) => (number + 1 + windows.slices) * windows.slice;
  const sliceNumber = (at: number) => Math.floor(at / windows.slice);
  const sliceOf = (state: State, at: number): Slice => {
    const number = sliceNumber(at);
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
    tokensToday: tokensToday(state, at),
    reserved: state.reserved,
    running: state.running.size,
    requestsResetMs: untilAtMost(state, 'requests', 0, at),
    tokensResetMs: untilAtMost(state, 'tokens', 0, at),
  });

  const refusal = (state: State, limits: Limits, at: number): { limit: LimitName; retryMs: number } | undefined => {
    const { requestsPerMinute, tokensPerMinute, concurrentRequests, tokensPerDay } = limits;
    const { reserved, running } = state;
    const today = tokensToday(state, at);
    if (tokensPerDay !== undefined && today + reserved >= tokensPerDay) {
      const retryMs = today >= tokensPerDay ? (dayOf(at) + 1) * windows.day - at : RETRY_RUNNING_MS;
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
    spend(state, at, tokens);
  };

  return {
    async admit({ key, id, reserve }, limits) {
      const at = now();
      const state = stateOf(key, at);
      const refused = refusal(state, limits, at);
      if (refused !== undefined) return { kind: 'refused', ...refused, counts: countsOf(state, at) };
      sliceOf(state, at).requests++;
      const its = Math.min(reserve, MAX_RESERVE);
      state.running.set(id, its);
      state.reserved += its;
      return { kind: 'admitted', counts: countsOf(state, at) };
    },
    async look(key, limits) {
      const at = now();
      const state = stateOf(key, at);
      const refused = refusal(state, limits, at);
      const counts = countsOf(state, at);
      return refused === undefined ? { kind: 'admitted', counts } : { kind: 'refused', ...refused, counts };
    },
    async settle({ key, id }, tokens) {
      const state = states.get(key);
      const reserve = state?.running.get(id);
      if (state !== undefined && reserve !== undefined) {
        state.running.delete(id);
        state.reserved -= reserve;
      }
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
