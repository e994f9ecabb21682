import {
  type Ack,
  ProbeAnswer,
  Reject,
  type RejectedBlocks,
  type RequestAck,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import type { EngineCounts } from '../observe/engine-counts.ts';
import { type BadMessageReason, type PlanOutcome, type ProbeOutcome, rejectLabel } from '../observe/labels.ts';
import type { RequestState } from '../request/request-state.ts';
import type { NegotiatedHello } from './hello.ts';
import type { PlanLedger, PlannedRequest } from './plan-ledger.ts';

export interface AckReaderDeps {
  negotiated: NegotiatedHello;
  requests: ReadonlyMap<number, RequestState>;
  ledger: PlanLedger;
  counts: EngineCounts;
  /** Called when the engine does not know a request: the report of its end was lost. */
  onUnknownRequest(handle: number): void;
}

/** Bounds of the protocol for HeldTokens, in bytes. */
const MAX_HELD = 16_384;
const MAX_GROUP_BYTES = 12 << 10;

const REFUSED_PROBES: ReadonlyMap<number, ProbeOutcome> = new Map<number, ProbeOutcome>([
  [ProbeAnswer.PROBE_ANSWER_NO_ROOM, 'no_room'],
  [ProbeAnswer.PROBE_ANSWER_UNSUPPORTED, 'unsupported'],
]);

/**
 * Applies what the engine did with a plan. Its word is the truth: blocks that it did not evict are resident again,
 * and blocks that it calls holes are holes, whoever asked for them.
 */
export function createAckReader({ negotiated, requests, ledger, counts, onUnknownRequest }: AckReaderDeps) {
  const { blockSize } = negotiated.hello;

  const takeBack = (planned: readonly PlannedRequest[]) => {
    for (const { handle, epoch, blocks, shadowed, begins, probe } of planned) {
      const state = requests.get(handle);
      if (state === undefined) continue;
      if (state.epoch === epoch) {
        state.table.restore(blocks);
        state.table.restoreVirtual(shadowed);
        if (begins) state.forgetShadow();
      }
      if (probe) state.schedule.declined(state.tokens, blockSize);
    }
  };

  const evicted = (state: RequestState, { evicted: blocks }: RequestAck): number => {
    const fresh = state.table.markHoles(blocks);
    if (fresh > 0) counts.evicted(state, fresh);
    return fresh;
  };

  /** Returns how many blocks of the plan the engine would have freed. */
  const shadowed = (state: RequestState, { shadowEvicted, rejected }: RequestAck, asked: PlannedRequest): number => {
    const done = asked.shadowed.filter((block) => shadowEvicted.includes(block));
    asked.shadowed = asked.shadowed.filter((block) => !shadowEvicted.includes(block));
    if (!rejected.some(({ blocks }) => blocks.length === 0)) asked.begins = false;
    if (done.length > 0) counts.shadowEvicted(state, done.length);
    return done.length;
  };

  const merged = (state: RequestState, { merged: merges }: RequestAck) => {
    if (merges.length > 0) counts.merged(state, merges.length);
  };

  /** Whatever else the report may say, it is for people: only its size matters. */
  const held = (state: RequestState, { held: tokens }: RequestAck) => {
    if (tokens !== undefined && tokens.shares.length <= MAX_HELD && tokens.groups.length <= MAX_GROUP_BYTES)
      state.held = tokens;
  };

  const rejected = (
    state: RequestState | undefined,
    handle: number,
    entry: RejectedBlocks,
    asked: PlannedRequest | undefined,
  ) => {
    const { reason, blocks } = entry;
    const wanted = asked === undefined ? 0 : asked.blocks.length + asked.shadowed.length;
    counts.rejected(rejectLabel(reason), blocks.length > 0 ? blocks.length : wanted);
    if (reason === Reject.REJECT_UNKNOWN_REQUEST) {
      onUnknownRequest(handle);
    } else if (state === undefined || reason === Reject.REJECT_STALE_EPOCH) {
      return;
    } else if (blocks.length === 0) {
      state.backOffUntil = state.tokens + blockSize;
    } else if (reason === Reject.REJECT_NOT_RESIDENT && (asked?.shadowed.length ?? 0) === 0) {
      state.table.markHoles(blocks);
    } else {
      state.table.refuse(blocks);
    }
  };

  /** `unsupported` is about this request at this moment (its thinking has ended, say), not about the engine. */
  const answered = (state: RequestState, answer: ProbeAnswer) => {
    if (answer === ProbeAnswer.PROBE_ANSWER_STARTED) return;
    if (answer === ProbeAnswer.PROBE_ANSWER_UNSUPPORTED) state.schedule.refused();
    else state.schedule.declined(state.tokens, blockSize);
    counts.probe(REFUSED_PROBES.get(answer) ?? 'unanswered');
  };

  return {
    /** Returns why the message was dropped. */
    read(ack: Ack): BadMessageReason | undefined {
      if (ack.planSequence >= ledger.next || ack.planSequence === 0n) return 'unknown_plan';
      const { planned = [], lost } = ledger.settle(ack.planSequence);
      for (const lostPlan of lost) {
        counts.plan('lost');
        takeBack(lostPlan);
      }
      const wanted = planned.reduce((sum, { blocks, shadowed }) => sum + blocks.length + shadowed.length, 0);
      const plannedFor = new Map(planned.map((request) => [request.handle, request]));
      let done = 0;
      let stale = false;
      let started = false;
      for (const answer of ack.requests) {
        const asked = plannedFor.get(answer.handle);
        const state = requests.get(answer.handle);
        const current = state?.epoch === answer.epoch ? state : undefined;
        if (current !== undefined) {
          done += evicted(current, answer);
          merged(current, answer);
          held(current, answer);
          if (asked !== undefined) done += shadowed(current, answer, asked);
        }
        for (const entry of answer.rejected) {
          if (entry.reason === Reject.REJECT_STALE_EPOCH) stale = true;
          rejected(current, answer.handle, entry, asked);
        }
        if (asked?.probe && state !== undefined) {
          answered(state, answer.probe);
          started ||= answer.probe === ProbeAnswer.PROBE_ANSWER_STARTED;
          asked.probe = false;
        }
      }
      takeBack(planned);
      if (planned.length === 0) return undefined;
      counts.plan(outcomeOf(wanted, done, stale, started));
      return undefined;
    },
  };
}

/** A plan that asked for probes only is applied when one was started. */
function outcomeOf(wanted: number, done: number, stale: boolean, started: boolean): PlanOutcome {
  if (wanted === 0 ? started : done >= wanted) return 'applied';
  if (done > 0) return 'partial';
  return stale ? 'stale' : 'rejected';
}
