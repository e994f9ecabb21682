import { type Finished, FinishReason, type RequestStep, type Started } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { MeasuredGroups } from '../measure/measured-groups.ts';
import type { EngineCounts } from '../observe/engine-counts.ts';
import type { BadMessageReason } from '../observe/labels.ts';
import { ProbeRun } from '../request/probe.ts';
import type { RequestState } from '../request/request-state.ts';
import type { NegotiatedHello } from './hello.ts';

export interface RunningProbesDeps {
  negotiated: NegotiatedHello;
  requests: ReadonlyMap<number, RequestState>;
  counts: EngineCounts;
  measured: MeasuredGroups;
}

/** The forks of one engine that write a probed answer, each from its start to its end. */
export class RunningProbes {
  readonly #deps: RunningProbesDeps;
  /** undefined: the fork of an unknown request. It is followed so that its messages do not count as errors. */
  readonly #runs = new Map<number, ProbeRun | undefined>();
  /** Tokens that a probe generates at most, as the engine was told. */
  #maxTokens = 1;
  /** Probes that have read enough and that the engine was not told to stop yet. */
  #settled: number[] = [];

  constructor(deps: RunningProbesDeps) {
    this.#deps = deps;
  }

  has(handle: number): boolean {
    return this.#runs.has(handle);
  }

  /** Takes note of the most tokens that the engine was told a probe may generate. */
  expectTokens(maxTokens: number): void {
    this.#maxTokens = maxTokens;
  }

  /** false: the parent is unknown, and the fork is followed without use. */
  start({ handle, computedTokens, evicted }: Started, parentHandle: number): boolean {
    const { requests, negotiated, measured } = this.#deps;
    const parent = requests.get(parentHandle);
    const readShare = parent?.profile.hits.share ?? 1;
    const groupPeaks = parent?.sample === undefined ? 0 : measured.all;
    const { blockSize } = negotiated.hello;
    const run = parent && new ProbeRun(parentHandle, computedTokens, evicted, blockSize, readShare, groupPeaks);
    this.#runs.set(handle, run);
    parent?.schedule.started(parent.tokens);
    return parent !== undefined;
  }

  /** Adds a step of a fork; returns why it was dropped. */
  step({ handle, masses, computedTokens }: RequestStep): BadMessageReason | undefined {
    if (!this.#runs.has(handle)) return 'unknown_handle';
    const run = this.#runs.get(handle);
    if (run === undefined || masses.length === 0) return undefined;
    if (!run.add(masses, computedTokens, this.#deps.measured)) return 'probe_mass_length';
    const stopAfter = this.#deps.requests.get(run.parent)?.profile.probe.stopAfter ?? 0;
    // Asked once: an engine that cannot stop a probe lets it end by itself.
    if (stopAfter > 0 && run.unchangedSteps === stopAfter) this.#settled.push(handle);
    return undefined;
  }

  /** The running probes that have read enough since the last call; the engine may stop them. */
  takeSettled(): number[] {
    const handles = this.#settled.filter((handle) => this.#runs.has(handle));
    this.#settled = [];
    return handles;
  }

  /**
   * false: no such fork. A probe that ended by itself counts with whatever it read. One that was aborted counts from
   * half of its tokens on: with fewer, blocks that the rest of the answer reads would count as seen and unread.
   */
  finish({ handle, probeTokens, reason }: Finished): boolean {
    if (!this.#runs.has(handle)) return false;
    const run = this.#runs.get(handle);
    this.#runs.delete(handle);
    const { requests, counts } = this.#deps;
    counts.probeTokens(probeTokens);
    const parent = run && requests.get(run.parent);
    parent?.schedule.ended(probeTokens);
    const complete = reason === FinishReason.FINISH_REASON_STOP || reason === FinishReason.FINISH_REASON_LENGTH;
    const useful = run !== undefined && run.steps >= (complete ? 1 : Math.max(1, Math.ceil(this.#maxTokens / 2)));
    if (useful) parent?.foldProbe(run);
    const used = useful && parent !== undefined;
    counts.probe(used ? (complete ? 'finished' : 'partial') : 'dropped');
    return true;
  }
}
