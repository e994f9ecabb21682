import { BinaryReader } from '@bufbuild/protobuf/wire';
import {
  AttachRequest,
  KvPolicyService,
  type Phase,
  PoolState,
  type RequestStep,
  ShadowReads,
  type Step,
} from '../../proto/gen/crystalkv/v1/policy.ts';

/** A message that could not be decoded: no case is set, the stream goes on. */
const UNDECODABLE: AttachRequest = Object.freeze({ message: undefined });

/** Tag bytes: field number << 3 | wire type. */
const STEP_IN_REQUEST = 34;
const STEP = { step: 8, pool: 18, requests: 26, more: 32 } as const;
const ROW = { handle: 8, epoch: 16, computedTokens: 24, phase: 32, segmentStarts: 42, masses: 50, shadow: 58 } as const;

/** Never throws. The masses of a step are views of `bytes`, not copies: they are valid as long as `bytes` are. */
export function decodeAttachRequest(bytes: Uint8Array): AttachRequest {
  try {
    if (bytes[0] !== STEP_IN_REQUEST) return AttachRequest.decode(bytes);
    const reader = new BinaryReader(bytes);
    reader.uint32();
    const end = reader.uint32() + reader.pos;
    if (end !== bytes.length) return AttachRequest.decode(bytes);
    return { message: { $case: 'step', value: decodeStep(reader, end) } };
  } catch {
    return UNDECODABLE;
  }
}

/** Does what the generated decoder does, without its copies: a step carries megabytes of masses. */
function decodeStep(reader: BinaryReader, end: number): Step {
  const step: Step = { step: 0n, pool: undefined, requests: [], more: false };
  while (reader.pos < end) {
    const tag = reader.uint32();
    if (tag === STEP.step) step.step = BigInt(reader.uint64());
    else if (tag === STEP.pool) step.pool = PoolState.decode(reader, reader.uint32());
    else if (tag === STEP.requests) step.requests.push(decodeRow(reader, reader.uint32() + reader.pos));
    else if (tag === STEP.more) step.more = reader.bool();
    else reader.skip(tag & 7, tag >>> 3);
  }
  return step;
}

const NO_MASSES = Buffer.alloc(0);

function decodeRow(reader: BinaryReader, end: number): RequestStep {
  const row: RequestStep = {
    handle: 0,
    epoch: 0,
    computedTokens: 0,
    phase: 0,
    segmentStarts: [],
    masses: NO_MASSES,
    shadow: undefined,
  };
  while (reader.pos < end) {
    const tag = reader.uint32();
    if (tag === ROW.handle) row.handle = reader.uint32();
    else if (tag === ROW.epoch) row.epoch = reader.uint32();
    else if (tag === ROW.computedTokens) row.computedTokens = reader.uint32();
    else if (tag === ROW.phase) row.phase = reader.int32() as Phase;
    else if (tag === ROW.segmentStarts) {
      const last = reader.uint32() + reader.pos;
      while (reader.pos < last) row.segmentStarts.push(reader.uint32());
    } else if (tag === ROW.masses) {
      const view = reader.bytes();
      row.masses = Buffer.from(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
    } else if (tag === ROW.shadow) row.shadow = ShadowReads.decode(reader, reader.uint32());
    else reader.skip(tag & 7, tag >>> 3);
  }
  return row;
}

/** The generated service, except that undecodable bytes do not end an engine's stream. */
export const tolerantService = {
  ...KvPolicyService,
  attach: { ...KvPolicyService.attach, requestDeserialize: decodeAttachRequest },
};
