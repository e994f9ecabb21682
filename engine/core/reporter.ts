import { type EndReason, FINISHES, MODES, PHASES } from '../../common/protocol.ts';
import type { Configure, PoolState, RequestAck, RequestStep, Started } from '../../proto/gen/crystalkv/v1/policy.ts';
import { Mode } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { Report } from '../types.ts';
import type { Sequence } from './sequence.ts';

/** Below gRPC's 4 MiB by a margin: a step with more mass bytes is split. */
const MAX_MASS_BYTES = 3 << 20;

/** Tells the policy service what happens, while a stream is attached; says nothing otherwise. */
export class Reporter {
  readonly #send: (message: Report) => void;
  readonly #groups: number;
  readonly #lockstep: boolean;
  #configure: Configure | undefined;
  /** False: the configuration names head groups that the model has not; nothing is measured then. */
  #measurable = false;

  /** @param groups head groups that the model measures */
  constructor(groups: number, lockstep: boolean, send: (message: Report) => void) {
    this.#groups = groups;
    this.#lockstep = lockstep;
    this.#send = send;
  }

  get attached(): boolean {
    return this.#configure !== undefined;
  }

  /** Most tokens that a probe may generate. */
  get probeTokens(): number {
    return this.#configure?.probeTokens ?? 0;
  }

  /** From now on everything is reported; what is alive already goes first. */
  attach(configure: Configure, alive: readonly Sequence[]): void {
    this.#adopt(configure);
    this.#send({ $case: 'snapshot', value: { requests: alive.filter((s) => s.fork === undefined).map(describe) } });
  }

  configure(configure: Configure): void {
    if (this.attached) this.#adopt(configure);
  }

  #adopt(configure: Configure): void {
    this.#configure = configure;
    this.#measurable = configure.headGroups.every((group) => group < this.#groups);
  }

  detach(): void {
    this.#configure = undefined;
  }

  /**
   * Whether to measure what a sequence attends to when it computes its next token in this step. What `measure_every`
   * counts is written in the protocol.
   */
  wantsMasses(sequence: Sequence, step: number): boolean {
    if (this.#configure === undefined || !this.#measurable) return false;
    if (sequence.request.cache.mode === 'off') return false;
    if (sequence.fork !== undefined) return true;
    const every = this.#configure.measureEvery;
    return every > 0 && (this.#lockstep ? sequence.generated : step) % every === 0;
  }

  started(sequence: Sequence): void {
    if (this.attached) this.#send({ $case: 'started', value: describe(sequence) });
  }

  preempted(sequence: Sequence): void {
    if (this.attached) this.#send({ $case: 'preempted', value: { handle: sequence.handle, epoch: sequence.epoch } });
  }

  finished(sequence: Sequence, reason: EndReason): void {
    if (!this.attached) return;
    const probeTokens = sequence.fork === undefined ? 0 : sequence.computedInAll;
    const value = {
      handle: sequence.handle,
      reason: FINISHES.values[reason],
      generatedTokens: sequence.generated,
      probeTokens,
    };
    this.#send({ $case: 'finished', value });
  }

  ack(planSequence: bigint, step: number, requests: RequestAck[]): void {
    if (this.attached) this.#send({ $case: 'ack', value: { planSequence, appliedAtStep: BigInt(step), requests } });
  }

  /** @param entries sequences that were computed in this step, with the masses of those that were measured */
  step(
    step: number,
    pool: PoolState,
    entries: readonly { sequence: Sequence; masses: Uint8Array | undefined }[],
  ): void {
    if (!this.attached) return;
    let requests: RequestStep[] = [];
    let bytes = 0;
    for (const { sequence, masses } of entries) {
      const selected = masses === undefined ? new Uint8Array() : this.#select(masses);
      if (bytes + selected.length > MAX_MASS_BYTES && requests.length > 0) {
        this.#send({ $case: 'step', value: { step: BigInt(step), pool, requests, more: true } });
        requests = [];
        bytes = 0;
      }
      bytes += selected.length;
      requests.push({
        handle: sequence.handle,
        epoch: sequence.epoch,
        computedTokens: sequence.computed,
        phase: PHASES.values[sequence.fork === undefined ? sequence.phase : 'answer'],
        segmentStarts: sequence.segmentStarts,
        masses: selected as Buffer,
      });
      sequence.segmentStarts = [];
    }
    this.#send({ $case: 'step', value: { step: BigInt(step), pool, requests, more: false } });
  }

  /** The head groups that were asked for, in the order in which they were asked for. */
  #select(masses: Uint8Array): Uint8Array {
    const groups = this.#configure?.headGroups ?? [];
    if (groups.length === 0) return masses;
    const row = masses.length / this.#groups;
    const selected = new Uint8Array(groups.length * row);
    groups.forEach((group, i) => {
      selected.set(masses.subarray(group * row, (group + 1) * row), i * row);
    });
    return selected;
  }
}

function describe(sequence: Sequence): Started {
  const { crystalkvId, profile, budgetTokens, mode } = sequence.request.cache;
  return {
    handle: sequence.handle,
    crystalkvId,
    choiceIndex: sequence.request.choiceIndex,
    promptTokens: sequence.promptTokens,
    options: { profile, budgetTokens, mode: mode === undefined ? Mode.MODE_UNSPECIFIED : MODES.values[mode] },
    epoch: sequence.epoch,
    evicted: sequence.holes,
    parentHandle: sequence.fork?.parent.handle,
    computedTokens: sequence.computed,
  };
}
