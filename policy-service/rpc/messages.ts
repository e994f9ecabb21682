import { MODES } from '../../common/protocol.ts';
import type {
  EngineState,
  ProfileInfo,
  RequestState as RequestMessage,
  ShadowCost,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import type { ProbeReading } from '../policies/policy.ts';
import type { Profile } from '../request/profiles.ts';
import type { RequestState } from '../request/request-state.ts';
import type { EngineSession } from '../session/session.ts';

type SegmentFacts = Pick<RequestState, 'segmentStarts' | 'tokens'> & {
  probe: ProbeReading;
  table: { blockSize: number };
};

/**
 * What people are shown of a request. Blocks outside the evictable range have the highest value of those inside. From
 * the first call on, the reads of its blocks are counted. `held`: with what is in memory of each token.
 */
export function requestMessage(engineId: string, request: RequestState, held = false): RequestMessage {
  request.reads.wanted = true;
  const { table, probe, schedule, start } = request;
  const { blocks, first, last } = table;
  const keep = new Uint8Array(Math.ceil(blocks / 8));
  for (let block = 0; block < blocks; block += 1) if (!table.isHole(block)) keep[block >> 3]! |= 1 << (block & 7);
  const values = request.ranking.keepValues(first, Math.min(last, blocks));
  const reads = request.reads.counts(blocks);
  const highest = values.reduce((most, value) => Math.max(most, value), values[0] ?? 0);
  return {
    engineId,
    handle: request.handle,
    crystalkvId: start.crystalkvId,
    choiceIndex: start.choiceIndex,
    epoch: request.epoch,
    promptTokens: start.promptTokens,
    computedTokens: request.tokens,
    phase: request.phase,
    profile: request.profile.name,
    policy: request.policyName,
    mode: MODES.values[request.mode],
    keep: Buffer.from(keep),
    blocks,
    residentBlocks: table.resident,
    evictedBlocks: table.holes,
    peakResidentBlocks: request.peakResident,
    keepValues: Array.from({ length: blocks }, (_, block) => values[block - first] ?? highest),
    evictableFrom: first,
    evictableTo: last,
    segmentStarts: [...request.segmentStarts],
    probeMasses: probe.count === 0 ? [] : Array.from({ length: blocks }, (_, block) => probe.masses[block] ?? 0),
    probes: probe.count,
    probeTokens: schedule.spentTokens,
    cold: request.cold,
    blockHits: reads.hits,
    lastHitTokens: reads.lastTokens,
    segmentMasses: probe.count === 0 ? [] : segmentMasses(request),
    canary: request.canary,
    ended: false,
    ...(held && request.held !== undefined ? { held: request.held } : {}),
    ...(request.mode === 'shadow' ? { shadow: shadowCost(request) } : {}),
  };
}

function shadowCost({ table, shadow, marksTokens }: RequestState): ShadowCost {
  return { blocks: table.virtual, phases: shadow.phases, byToken: marksTokens };
}

/** The probe masses of each segment's blocks; a block in several segments counts by its tokens in each. */
export function segmentMasses({ segmentStarts, probe, table, tokens }: SegmentFacts): number[] {
  const { blockSize } = table;
  return segmentStarts.map((start, i) => {
    const end = segmentStarts[i + 1] ?? tokens;
    let mass = 0;
    for (let block = Math.floor(start / blockSize); block * blockSize < end && block < probe.seen; block += 1) {
      const overlap = Math.min(end, (block + 1) * blockSize) - Math.max(start, block * blockSize);
      mass += (probe.masses[block]! * Math.max(0, overlap)) / blockSize;
    }
    return mass;
  });
}

export function engineMessage({ negotiated, pool, step, requests }: EngineSession): EngineState {
  const { engineId, instanceId, model, blockSize, bytesPerBlock, lockstep } = negotiated.hello;
  return { engineId, instanceId, model, blockSize, bytesPerBlock, pool, step, requests: requests.size, lockstep };
}

export function profileMessage(profile: Profile, isDefault: boolean): ProfileInfo {
  const { name, policy, controller, mode } = profile;
  return {
    name,
    isDefault,
    policy,
    controller: controller.type,
    mode: MODES.values[mode],
    budgetTokens: controller.type === 'fixed' ? controller.budgetTokens : 0,
  };
}
