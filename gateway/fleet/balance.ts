import type { Backend } from './backend.ts';

/** What the rules know of the request. */
export interface Turn {
  /** Of the conversation; undefined when there is none. */
  prefixHash: number | undefined;
  /** Where its last turn went; undefined: not known. */
  home: Backend | undefined;
}

export interface BalanceSettings {
  rule: BalanceRule;
  /** Bytes of the first user message of a conversation, and of what comes before it, that are looked at. */
  prefix_bytes: number;
  /** The header that may name a conversation, in lower case. */
  session_header: string;
  /** How much more than the average a backend may have running before a conversation goes elsewhere: 1.25 is a quarter more. */
  load_factor: number;
  /** Share of free KV blocks, 0 to 1, from which a pool has room. */
  room_share: number;
  /** Milliseconds between two looks at the pools. */
  headroom_interval_ms: number;
}

/** Chooses one of at least one. Either all have the weight 0 or none has. */
type Rule = (candidates: readonly Backend[], turn: Turn, settings: BalanceSettings) => Backend;

/** Usages closer than this are the same: between two looks, requests would all go to the first by a hair. */
const USAGE_STEP = 0.05;
/** So few requests are no load: below it a conversation stays where it is, whatever the average. */
const ALWAYS_TAKEN = 4;
/** So many intervals after it was taken, and so long, a look says nothing any more. */
const STALE_INTERVALS = 5;
const STALE_MS = 10_000;

const RULES = {
  least_outstanding: least,

  /**
   * Where the last turn was, if that is not above its share. Else rendezvous hashing with bounded loads: each conversation
   * has an order of backends of its own, in which it takes the first that is not above its share
   * (https://arxiv.org/abs/1608.01350). A backend that comes or goes moves only the conversations that are its own.
   */
  prefix_affinity(candidates, turn, settings) {
    const { prefixHash, home } = turn;
    if (prefixHash === undefined) return least(candidates);
    let total = 1;
    let weights = 0;
    for (const candidate of candidates) {
      total += candidate.outstanding;
      weights += weightOf(candidate);
    }
    const average = (backend: Backend) => (total * weightOf(backend)) / weights;
    const bound = (backend: Backend) => Math.max(ALWAYS_TAKEN, Math.ceil(average(backend) * settings.load_factor));
    if (home !== undefined && home.load < bound(home) && candidates.includes(home)) return home;
    // A conversation that begins avoids what is above the average: it would have to move soon.
    const most = home === undefined ? (backend: Backend) => Math.max(2, Math.ceil(average(backend))) : bound;
    let best: Backend | undefined;
    let bestScore = -1;
    for (const candidate of candidates) {
      if (candidate.load >= most(candidate)) continue;
      // Weighted rendezvous hashing: a backend is the first of a share of conversations that is its share of the weights.
      const score = weightOf(candidate) / -Math.log((mix(prefixHash ^ candidate.hash) + 0.5) / 2 ** 32);
      if (score > bestScore) [best, bestScore] = [candidate, score];
    }
    return best ?? least(candidates);
  },

  /**
   * Among pools with room, or whose state is not known, the least outstanding requests decide; where no pool has room,
   * the freest does.
   */
  kv_headroom(candidates, _turn, { room_share, headroom_interval_ms }) {
    const oldest = performance.now() - Math.max(STALE_MS, headroom_interval_ms * STALE_INTERVALS);
    const usage = ({ headroom }: Backend): number => {
      if (headroom.kind === 'unknown' || headroom.at < oldest) return 0;
      const { freeShare, waiting } = headroom;
      return freeShare >= room_share && waiting === 0 ? 0 : 1 + Math.round((1 - freeShare) / USAGE_STEP);
    };
    const usages = candidates.map(usage);
    const lowest = Math.min(...usages);
    return least(candidates.filter((_, i) => usages[i] === lowest));
  },
} as const satisfies Record<string, Rule>;

export type BalanceRule = keyof typeof RULES;
export const BALANCE_RULES = Object.keys(RULES) as [BalanceRule, ...BalanceRule[]];

export function choose(candidates: readonly Backend[], turn: Turn, settings: BalanceSettings): Backend {
  return candidates.length === 1 ? (candidates[0] as Backend) : RULES[settings.rule](candidates, turn, settings);
}

/**
 * By outstanding requests divided by weight. Equals are all that have less than any would have with this request: otherwise a
 * light backend would get each request that finds it idle. Equals take turns in proportion to their weights, by start-time
 * fair queueing.
 */
function least(candidates: readonly Backend[]): Backend {
  let bound = Number.POSITIVE_INFINITY;
  let latest = 0;
  for (const candidate of candidates) {
    bound = Math.min(bound, (candidate.load + 1) / weightOf(candidate));
    latest = Math.max(latest, candidate.turn);
  }
  let best = candidates[0] as Backend;
  let bestTurn = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const next = candidate.turn + 1 / weightOf(candidate);
    if (next <= bestTurn && candidate.load / weightOf(candidate) < bound) [best, bestTurn] = [candidate, next];
  }
  // One that was away has nothing to catch up on.
  best.turn = Math.max(latest, bestTurn);
  return best;
}

/** Those of weight 0 are only among their like, and equals. */
function weightOf({ weight }: Backend): number {
  return weight === 0 ? 1 : weight;
}

/** The finaliser of MurmurHash3: each bit of the result depends on all of the input. Not negative. */
function mix(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
