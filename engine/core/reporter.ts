import { type EndReason, FINISHES, MODES, PHASES } from '../../common/protocol.ts';
import type {
  Configure,
  PoolState,
  RequestAck,
  RequestStep,
  ShadowReads,
  Started,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import { Mode } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { MarkedReads } from '../model/shadow-cache.ts';
import type { Report } from '../types.ts';
import type { Sequence } from './sequence.ts';

/** A step with more bytes of masses is split into messages; gRPC's limit is 4 MiB. */
const MAX_MASS_BYTES = 3 << 20;

/** Reports to the policy service while a stream is attached; does nothing otherwise. */
export class Reporter {
  readonly #send: (message: Report) => void;
  readonly #groups: number;
  readonly #lockstep: boolean;
  #configure: Configure | undefined;
  /** False when the configuration names a head group that the model does not have: nothing is measured then. */
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

  /** Somebody watches what becomes of single tokens. */
  get wantsHeld(): boolean {
    return this.#configure?.reportHeld ?? false;
  }

  /** Limit of tokens that a probe generates. */
  get probeTokens(): number {
    return this.#measurable ? (this.#configure?.probeTokens ?? 0) : 0;
  }

  /** From now on everything is reported, beginning with a snapshot of what is alive. */
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
   * Whether to measure what a sequence attends to when it computes its next token in this step. The protocol says what
   * `measure_every` counts.
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

  /** @param entries the sequences that were computed in this step, with masses if they were measured, and what
   * the measured query gives to tokens that shadow plans marked
   */
  step(
    step: number,
    pool: PoolState,
    entries: readonly { sequence: Sequence; masses: Uint8Array | undefined; shadow?: MarkedReads | undefined }[],
  ): void {
    if (!this.attached) return;
    let requests: RequestStep[] = [];
    let bytes = 0;
    for (const { sequence, masses, shadow } of entries) {
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
        ...(shadow === undefined ? {} : { shadow: this.#reads(shadow) }),
      });
      sequence.segmentStarts = [];
    }
    this.#send({ $case: 'step', value: { step: BigInt(step), pool, requests, more: false } });
  }

  /** Over the configured head groups. */
  #reads({ missed, regretted }: MarkedReads): ShadowReads {
    const configured = this.#configure?.headGroups ?? [];
    const groups = configured.length === 0 ? Array.from(missed, (_, group) => group) : configured;
    const sum = (of: ArrayLike<number>) => groups.reduce((total, group) => total + of[group]!, 0);
    return { missedMass: sum(missed) / groups.length, regrettedTokens: sum(regretted) };
  }

  /** The masses of the configured head groups, in the configured order. */
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
