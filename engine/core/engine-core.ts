import { type EndReason, noneOf } from '../../common/protocol.ts';
import type { Configure, Plan } from '../../proto/gen/crystalkv/v1/policy.ts';
import { ProbeAnswer } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { StepModel } from '../model/llama.ts';
import {
  type EngineStats,
  FINISH_REASONS,
  type FinishReason,
  type GenerateEvent,
  type GenerateRequest,
  type Report,
} from '../types.ts';
import { BlockPool } from './block-pool.ts';
import type { CoreOptions } from './options.ts';
import { PlanApplier } from './plans.ts';
import { forkForProbe } from './probe.ts';
import { Reporter } from './reporter.ts';
import { Sampler } from './sampler.ts';
import { Scheduler } from './scheduler.ts';
import { Sequence } from './sequence.ts';

/** Where the core's output goes. */
export interface CoreSink {
  event(id: string, event: GenerateEvent): void;
  report(message: Report): void;
}

/** The engine without threads and sockets: queues, cache, model and plans, moved on by `step`. */
export class EngineCore {
  readonly #options: CoreOptions;
  readonly #model: StepModel;
  readonly #sink: CoreSink;
  readonly pool: BlockPool;
  readonly #scheduler: Scheduler;
  readonly #reporter: Reporter;
  readonly #plans: PlanApplier;
  readonly #byHandle = new Map<number, Sequence>();
  readonly #byId = new Map<string, Sequence>();
  readonly #samplers = new WeakMap<Sequence, Sampler>();
  #queuedPlans: Plan[] = [];
  #nextHandle = 1;
  #step = 0;
  #missedSteps = 0;
  #totals = { promptTokens: 0, generatedTokens: 0, probes: 0, probeTokens: 0, measuredRows: 0 };
  #finished = noneOf(FINISH_REASONS);

  constructor(options: CoreOptions, model: StepModel, sink: CoreSink) {
    this.#options = options;
    this.#model = model;
    this.#sink = sink;
    this.pool = new BlockPool(options.poolBlocks);
    const limits = {
      maxSequences: options.maxSequences,
      maxTokens: options.maxTokensPerStep,
      blockSize: options.blockSize,
    };
    this.#scheduler = new Scheduler(
      this.pool,
      limits,
      (sequence) => this.#reporter.preempted(sequence),
      (probe) => this.#endProbe(probe, 'dropped'),
    );
    const { layers, kvHeads } = model.config;
    this.#reporter = new Reporter(layers * kvHeads, options.lockstepTimeoutMs !== undefined, (message) =>
      sink.report(message),
    );
    this.#plans = new PlanApplier({
      options,
      pool: this.pool,
      step: () => this.#step,
      find: (handle) => this.#byHandle.get(handle),
      startProbe: (sequence) => this.#startProbe(sequence),
      merge: (blocks) => model.merge(blocks),
    });
  }

  get hasWork(): boolean {
    return this.#scheduler.running.length + this.#scheduler.waiting.length > 0;
  }

  /** The plan of the last step is to be waited for. */
  get expectsPlan(): boolean {
    return this.#options.lockstepTimeoutMs !== undefined && this.#reporter.attached;
  }

  /** Everything that is alive, probes included. */
  get sequences(): readonly Sequence[] {
    return [...this.#byHandle.values()];
  }

  /** Number of the last step that was computed; 0 before the first. */
  get lastStep(): number {
    return this.#step;
  }

  submit(request: GenerateRequest): void {
    const sequence = new Sequence(this.#nextHandle++, request);
    this.#byHandle.set(sequence.handle, sequence);
    this.#byId.set(request.id, sequence);
    this.#scheduler.waiting.push(sequence);
    this.#totals.promptTokens += sequence.promptTokens;
    this.#reporter.started(sequence);
  }

  abort(id: string): void {
    const sequence = this.#byId.get(id);
    if (sequence !== undefined) this.#finish(sequence, 'abort');
  }

  abortAll(): void {
    for (const id of [...this.#byId.keys()]) this.abort(id);
  }

  attach(configure: Configure): void {
    this.#queuedPlans = [];
    this.#reporter.attach(configure, this.sequences);
  }

  configure(configure: Configure): void {
    this.#reporter.configure(configure);
  }

  /** The stream is gone: nothing is reported any more, and what it still had to say is void. */
  detach(): void {
    this.#queuedPlans = [];
    this.#reporter.detach();
    for (const sequence of this.sequences) {
      if (sequence.fork !== undefined) this.#finish(sequence, 'abort');
    }
  }

  /** Is applied before the next step. */
  plan(plan: Plan): void {
    if (this.#reporter.attached) this.#queuedPlans.push(plan);
  }

  /** Counts a decision that did not come in time. */
  missPlan(): void {
    this.#missedSteps += 1;
  }

  /** Applies plans, schedules, computes, samples, reports. Does nothing when there is nothing to do. */
  step(): void {
    this.#applyPlans();
    const scheduled = this.#scheduler.schedule();
    if (scheduled.length === 0) return;
    this.#step += 1;
    const chunks = scheduled.map(({ sequence, count }) => {
      const samples = count === sequence.pending;
      return {
        tokenIds: sequence.tokenIds.slice(sequence.computed, sequence.computed + count),
        position: sequence.computed,
        blocks: sequence.blocks,
        logits: samples,
        measure: samples && this.#reporter.wantsMasses(sequence, this.#step),
      };
    });
    const results = this.#model.forward(chunks);
    const ended: { sequence: Sequence; reason: FinishReason }[] = [];
    scheduled.forEach(({ sequence, count }, i) => {
      sequence.computed += count;
      sequence.computedInAll += count;
      this.#scheduler.publish(sequence);
      const logits = results[i]!.logits;
      const reason = logits === undefined ? undefined : this.#append(sequence, logits);
      if (reason !== undefined) ended.push({ sequence, reason });
    });
    if (this.#options.managed && !this.#reporter.attached) this.#missedSteps += 1;
    const entries = scheduled.map(({ sequence }, i) => ({ sequence, masses: results[i]!.masses }));
    for (const { masses } of entries) if (masses !== undefined) this.#totals.measuredRows += 1;
    this.#reporter.step(this.#step, this.#poolState(), entries);
    for (const { sequence, reason } of ended) {
      // a probe that ended together with its parent is gone already
      if (this.#byHandle.has(sequence.handle)) this.#finish(sequence, reason);
    }
  }

  #applyPlans(): void {
    const plans = this.#queuedPlans;
    this.#queuedPlans = [];
    for (const plan of plans) {
      const requests = this.#plans.apply(plan);
      if (requests.length > 0) this.#reporter.ack(plan.sequence, this.#step + 1, requests);
      for (const handle of plan.stopProbes) {
        const probe = this.#byHandle.get(handle);
        if (probe?.fork !== undefined) this.#finish(probe, 'stop');
      }
    }
  }

  /** Samples the next token. @returns why the sequence ends with it, if it does */
  #append(sequence: Sequence, logits: Float32Array): FinishReason | undefined {
    let sampler = this.#samplers.get(sequence);
    if (sampler === undefined) {
      sampler = new Sampler(sequence.request.sampling);
      this.#samplers.set(sequence, sampler);
    }
    const { tokenId, logprob } = sampler.sample(logits);
    sequence.tokenIds.push(tokenId);
    if (sequence.fork === undefined) {
      this.#totals.generatedTokens += 1;
      this.#notePhase(sequence, tokenId);
      this.#sink.event(sequence.request.id, { type: 'token', tokenId, logprob });
    }
    const { sampling } = sequence.request;
    if (tokenId === this.#model.config.eosTokenId && !sampling.ignoreEos) return 'stop';
    if (sampling.stopTokenIds.includes(tokenId)) return 'stop';
    const full = sequence.tokenIds.length >= this.#options.maxModelLength;
    return full || sequence.generated >= sampling.maxTokens ? 'length' : undefined;
  }

  #notePhase(sequence: Sequence, tokenId: number): void {
    const { endOfThinking, segmentMarkers } = this.#options;
    const length = sequence.tokenIds.length;
    if (segmentMarkers.includes(tokenId)) sequence.segmentStarts.push(length);
    const ends = endOfThinking.some((end) => end.every((id, i) => sequence.tokenIds[length - end.length + i] === id));
    if (ends) sequence.thinkingEnd ??= length;
  }

  #startProbe(parent: Sequence): ProbeAnswer {
    const suffix = this.#options.endOfThinking[0];
    const tokens = this.#reporter.probeTokens;
    if (suffix === undefined || tokens === 0 || parent.phase !== 'thinking' || parent.generated === 0) {
      return ProbeAnswer.PROBE_ANSWER_UNSUPPORTED;
    }
    const shared = Math.floor(parent.computed / this.#options.blockSize);
    const longest = parent.tokenIds.length + suffix.length + tokens;
    const busy = parent.probe !== undefined || !this.#scheduler.running.includes(parent);
    if (busy || longest > this.#options.maxModelLength) return ProbeAnswer.PROBE_ANSWER_NO_ROOM;
    const probe = forkForProbe(this.#nextHandle++, parent, shared * this.#options.blockSize, suffix, tokens);
    if (!this.#scheduler.startProbe(probe, parent.blocks.slice(0, shared), longest)) {
      return ProbeAnswer.PROBE_ANSWER_NO_ROOM;
    }
    parent.probe = probe;
    this.#byHandle.set(probe.handle, probe);
    this.#totals.probes += 1;
    this.#reporter.started(probe);
    return ProbeAnswer.PROBE_ANSWER_STARTED;
  }

  #finish(sequence: Sequence, reason: FinishReason): void {
    if (sequence.fork !== undefined) {
      this.#endProbe(sequence, reason);
      this.#scheduler.remove(sequence);
      return;
    }
    if (sequence.probe !== undefined) {
      const probe = sequence.probe;
      this.#endProbe(probe, 'dropped');
      this.#scheduler.remove(probe);
    }
    this.#scheduler.remove(sequence);
    this.#byHandle.delete(sequence.handle);
    this.#byId.delete(sequence.request.id);
    this.#finished[reason] += 1;
    this.#reporter.finished(sequence, reason);
    const { promptTokens, cachedTokens, generated } = sequence;
    this.#sink.event(sequence.request.id, {
      type: 'finished',
      reason,
      promptTokens,
      cachedTokens,
      generatedTokens: generated,
    });
  }

  /** Forgets a probe; its blocks are given back by the caller. */
  #endProbe(probe: Sequence, reason: EndReason): void {
    if (probe.fork !== undefined) probe.fork.parent.probe = undefined;
    this.#byHandle.delete(probe.handle);
    this.#totals.probeTokens += probe.computedInAll;
    this.#reporter.finished(probe, reason);
  }

  #poolState() {
    const { running, waiting, counters } = this.#scheduler;
    return {
      freeBlocks: this.pool.free,
      totalBlocks: this.pool.total,
      waiting: waiting.length,
      running: running.filter((sequence) => sequence.fork === undefined).length,
      preemptions: BigInt(counters.preemptions),
    };
  }

  stats(): EngineStats {
    const { freeBlocks, totalBlocks, waiting, running } = this.#poolState();
    return {
      step: this.#step,
      running,
      waiting,
      freeBlocks,
      totalBlocks,
      ...this.#scheduler.counters,
      ...this.#totals,
      evictedBlocks: this.#plans.evictedBlocks,
      merges: this.#plans.merges,
      finished: { ...this.#finished },
      policy: {
        connected: this.#reporter.attached,
        missedSteps: this.#missedSteps,
        plans: this.#plans.applied,
        rejected: { ...this.#plans.rejected },
        droppedReports: 0,
      },
    };
  }
}
