import type { RequestState } from '../request/request-state.ts';
import type { EngineSession } from '../session/session.ts';
import { phaseLabel } from './labels.ts';
import type { EngineReading, RequestGroup } from './state-metrics.ts';

/** What the metrics show of an engine: one pass over its requests adds them up by their labels. */
export function readingOf({ negotiated, pool, requests }: EngineSession): EngineReading {
  const { engineId, model, bytesPerBlock } = negotiated.hello;
  const { freeBlocks, totalBlocks, waiting, running } = pool;
  const groups = new Map<string, RequestGroup>();
  let cold = 0;
  for (const request of requests.values()) {
    const group = groupOf(groups, request);
    group.requests += 1;
    group.resident += request.table.resident;
    group.full += request.table.blocks;
    if (request.cold) cold += 1;
  }
  return {
    engine: engineId,
    model,
    blockBytes: Number(bytesPerBlock),
    pool: { free: freeBlocks, total: totalBlocks, waiting, running },
    groups: [...groups.values()],
    cold,
  };
}

function groupOf(groups: Map<string, RequestGroup>, request: RequestState): RequestGroup {
  const { modeLabel: mode, policyName: policy } = request;
  const profile = request.profile.name;
  // No label holds a newline.
  const key = `${profile}\n${policy}\n${mode}\n${request.phase}`;
  let group = groups.get(key);
  if (group === undefined) {
    group = { profile, policy, mode, phase: phaseLabel(request.phase), requests: 0, resident: 0, full: 0 };
    groups.set(key, group);
  }
  return group;
}
