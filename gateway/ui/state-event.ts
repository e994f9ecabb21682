import type {
  EngineState,
  HeldTokens,
  RequestState,
  ShadowCost,
  WatchResponse,
} from '../../proto/gen/crystalkv/v1/policy.ts';

/** Requests that one event describes block by block: the newest. The rest is in the totals. */
export const SHOWN_REQUESTS = 24;
/** Of so many, head group by head group: up to 16 KiB each. */
const SHOWN_GROUPS = 4;
/** Three digits are more than a colour or a tooltip shows. */
const DIGITS = 3;

/** What is known of all requests of a source together; blocks are summed over its engines. */
export interface Totals {
  requests: number;
  residentBlocks: number;
  /** What the same requests would hold if nothing had been evicted. */
  fullBlocks: number;
  /** Tokens beyond prompts since the watch began, as far as the watch saw them. */
  generatedTokens: number;
}

/** The data of an event `state`: JSON for the page, without any text of a request. */
export function stateEvent(source: number, { engines, requests }: WatchResponse, totals: Totals): string {
  // Those that have ended are told once only, so they go first.
  const newest = requests
    .toSorted((a, b) => Number(b.ended) - Number(a.ended) || b.handle - a.handle)
    .slice(0, SHOWN_REQUESTS);
  return JSON.stringify({ source, totals, engines: engines.map(engineOf), requests: newest.map(requestOf) });
}

export function engineOf({ engineId, model, blockSize, bytesPerBlock, pool }: EngineState) {
  return {
    engineId,
    model,
    blockSize,
    bytesPerBlock: Number(bytesPerBlock),
    freeBlocks: pool?.freeBlocks ?? 0,
    totalBlocks: pool?.totalBlocks ?? 0,
    waiting: pool?.waiting ?? 0,
    running: pool?.running ?? 0,
    preemptions: Number(pool?.preemptions ?? 0n),
  };
}

function requestOf(request: RequestState, index: number) {
  return {
    engineId: request.engineId,
    handle: request.handle,
    id: request.crystalkvId,
    choice: request.choiceIndex,
    promptTokens: request.promptTokens,
    tokens: request.computedTokens,
    phase: request.phase,
    profile: request.profile,
    policy: request.policy,
    mode: request.mode,
    blocks: request.blocks,
    resident: request.residentBlocks,
    evicted: request.evictedBlocks,
    peak: request.peakResidentBlocks,
    keep: Buffer.from(request.keep).toString('base64'),
    values: request.keepValues.map(short),
    from: request.evictableFrom,
    to: request.evictableTo,
    probe: request.probeMasses.map(short),
    probes: request.probes,
    probeTokens: request.probeTokens,
    hits: request.blockHits,
    lastHit: request.lastHitTokens,
    cold: request.cold,
    ...(request.held === undefined ? {} : { held: heldOf(request.held, index < SHOWN_GROUPS) }),
    ...(request.shadow === undefined ? {} : { shadow: shadowOf(request.shadow) }),
    ended: request.ended,
  };
}

/** As base64: one byte a token, and the bits of each head group. */
function heldOf({ from, shares, groups }: HeldTokens, withGroups: boolean) {
  return {
    from,
    shares: Buffer.from(shares).toString('base64'),
    groups: withGroups ? Buffer.from(groups).toString('base64') : '',
  };
}

/** Over all phases: what would be gone, and the mean share of attention on it, over the measured steps. */
function shadowOf({ blocks, phases }: ShadowCost) {
  const steps = phases.reduce((sum, phase) => sum + phase.steps, 0);
  const missed = phases.reduce((sum, phase) => sum + phase.steps * phase.missedMass, 0);
  return { blocks, steps, missed: short(missed / Math.max(1, steps)) };
}

function short(value: number): number {
  return Number(value.toPrecision(DIGITS));
}
