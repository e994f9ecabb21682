import type { ShadowReads } from '../../proto/gen/crystalkv/v1/policy.ts';
import { grown } from '../grown.ts';
import { findHits, topHalfHits } from '../measure/hits.ts';
import { meanMass } from '../measure/masses.ts';
import type { Measurement } from '../policies/policy.ts';
import type { RequestState } from './request-state.ts';
import { ofTokens, type ShadowFinding } from './shadow.ts';

/** Shared by all requests; what is in them is valid until the next call. */
let hits = new Uint8Array(256);
let mass = new Float64Array(256);
const measurement: Measurement = { tokens: 0, blocks: new Int32Array(0), count: 0, evictable: 0, hits, mass };

/** `dropped`: nothing was learned from the masses. */
export type TakenMasses =
  | { kind: 'learned'; shadow: ShadowFinding | undefined }
  | { kind: 'dropped'; reason: 'mass_length' | 'mass_code' | 'shadow_reads' };

/**
 * Takes the masses of one step in, for all that learn from them: the policy, the read counts, shadow mode and a
 * calibration sample.
 *
 * `codes` holds a row of log codes for each measured head group, with a column for each resident block; `reads` is what the
 * engine says of tokens that shadow plans marked.
 */
export function takeMasses(request: RequestState, codes: Uint8Array, reads?: ShadowReads): TakenMasses {
  const { table, definition, ranking, reads: readCounts, shadow, sample } = request;
  const columns = table.resident;
  const groups = request.measured.in(codes.length, columns);
  if (groups === undefined) return { kind: 'dropped', reason: 'mass_length' };
  const from = table.headColumns;
  const evictable = table.liveEvictable;
  const shadowed = request.mode === 'shadow' && table.virtual > 0 && !request.marksTokens;
  const tested = definition.hits === 'profile' || shadowed;
  hits = grown(hits, columns);
  mass = grown(mass, columns);
  if (tested || readCounts.wanted) {
    if (findHits(codes, groups, columns, from, from + evictable, request.profile.hits, hits)) {
      readCounts.add(table.live, evictable, hits, table.tokens);
    } else if (tested) return { kind: 'dropped', reason: 'mass_code' };
  }
  request.measuredSteps += 1;
  let finding: ShadowFinding | undefined;
  if (shadowed) {
    meanMass(codes, groups, columns, 0, columns, mass);
    finding = shadow.ofBlocks(table, hits, evictable, mass, from);
  } else if (request.marksTokens && table.virtual > 0 && reads !== undefined) {
    finding = ofTokens(reads, groups * table.blockSize);
    if (finding === undefined) return { kind: 'dropped', reason: 'shadow_reads' };
  }
  if (finding !== undefined) shadow.add(request.phase, finding);
  const taken: TakenMasses = { kind: 'learned', shadow: finding };
  if (groups === request.start.headGroups) sample?.observe(codes, columns, from, table);
  if (!ranking.observes) return taken;
  const topHalf = definition.hits === 'top_half';
  if (definition.mass || topHalf) meanMass(codes, groups, columns, from, columns, mass);
  if (topHalf) topHalfHits(mass, evictable, hits);
  measurement.tokens = table.tokens;
  measurement.blocks = table.live;
  measurement.count = table.liveCount;
  measurement.evictable = evictable;
  measurement.hits = hits;
  measurement.mass = mass;
  ranking.observe(measurement);
  return taken;
}
