import type { Configure, Plan } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { Chunk, ChunkResult, StepModel } from '../model/step-model.ts';
import type { EngineStats, FinishReason, GenerateEvent, GenerateRequest, Report } from '../types.ts';
import { BlockPool } from './block-pool.ts';
import { countedQueries, statisticsOf } from './counted-queries.ts';
import { Decoder } from './decoder.ts';
import { heldTokens } from './held.ts';
import { LiveSequences } from './live-sequences.ts';
import type { CoreOptions } from './options.ts';
import { PlanApplier } from './plans.ts';
import { Probes } from './probes.ts';
import { Reporter } from './reporter.ts';
import { type Scheduled, Scheduler } from './scheduler.ts';
import { Sequence } from './sequence.ts';
import { statsOf, Totals } from './stats.ts';

/** Where the core's output goes. */
export interface CoreSink {
  event(id: string, event: GenerateEvent): void;
  report(report: Report): void;
}

interface Ended {
  sequence: Sequence;
  reason: FinishReason;
}

/** The engine without threads and sockets: its queues, cache, model and plans. `step` moves it forward. */
export class EngineCore {
  readonly #options: CoreOptions;
  readonly #model: StepModel;
  readonly #sink: CoreSink;
  readonly pool: BlockPool;
  readonly #live = new LiveSequences();
  readonly #scheduler: Scheduler;
  readonly #decoder: Decoder;
  readonly #reporter: Reporter;
  readonly #probes: Probes;
  readonly #plans: PlanApplier;
  readonly #totals = new Totals();
  #queuedPlans: Plan[] = [];

  constructor(options: CoreOptions, model: StepModel, sink: CoreSink) {
    this.#options = options;
    this.#model = model;
    this.#sink = sink;
    const { layers, kvHeads, eosTokenId } = model.config;
    const lockstep = options.lockstepTimeoutMs !== undefined;
    this.pool = new BlockPool(options.poolBlocks, options.blockSize);
    this.#scheduler = new Scheduler(
      this.pool,
      { maxSequences: options.maxSequences, maxTokens: options.maxTokensPerStep },
      (sequence) => this.#reporter.preempted(sequence),
      (probe) => this.#probes.forget(probe, 'dropped'),
    );
    this.#decoder = new Decoder(options, eosTokenId);
    this.#reporter = new Reporter(layers * kvHeads, lockstep, (report) => sink.report(report));
    this.#probes = new Probes({
      options,
      pool: this.pool,
      live: this.#live,
      scheduler: this.#scheduler,
      reporter: this.#reporter,
      model,
    });
    const source = {
      ...{ layers, kvHeads },
      positions: (layer: number, block: number, head: number) => model.positions(layer, block, head),
    };
    this.#plans = new PlanApplier({
      options,
      pool: this.pool,
      step: () => this.#totals.step,
      find: (handle) => this.#live.byHandle(handle),
      startProbe: (sequence) => this.#probes.start(sequence),
      merge: (blocks, rule) => model.merge(blocks, rule),
      canFollow: (rule) => model.canFollow(rule),
      held: (sequence) => (this.#reporter.wantsHeld ? heldTokens(sequence, this.pool, source) : undefined),
      ask: (...asked) => model.ask(...asked),
      shadowCache: () => model.shadowCache(),
    });
  }

  get hasWork(): boolean {
    return this.#scheduler.running.length + this.#scheduler.waiting.length > 0;
  }

  /** Whether to wait for the plan of the last step. */
  get expectsPlan(): boolean {
    return this.#options.lockstepTimeoutMs !== undefined && this.#reporter.attached;
  }

  /** All live sequences, probes included. */
  get sequences(): readonly Sequence[] {
    return this.#live.all;
  }

  /** Number of the last step that was computed; 0 before the first. */
  get lastStep(): number {
    return this.#totals.step;
  }

  submit(request: GenerateRequest): void {
    const sequence = new Sequence(this.#live.newHandle(), request);
    this.#live.add(sequence);
    this.#scheduler.waiting.push(sequence);
    this.#totals.promptTokens += sequence.promptTokens;
    this.#reporter.started(sequence);
  }

  abort(id: string): void {
    const sequence = this.#live.byId(id);
    if (sequence !== undefined) this.#finish(sequence, 'abort');
  }

  abortAll(): void {
    for (const { fork, request } of this.sequences) if (fork === undefined) this.abort(request.id);
  }

  attach(configure: Configure): void {
    this.#queuedPlans = [];
    this.#model.keepStatistics(statisticsOf(configure));
    this.#reporter.attach(configure, this.sequences);
  }

  configure(configure: Configure): void {
    if (!this.#reporter.attached) return;
    this.#model.keepStatistics(statisticsOf(configure));
    this.#reporter.configure(configure);
  }

  /** The stream is lost: nothing is reported any more, and waiting plans are void. */
  detach(): void {
    this.#queuedPlans = [];
    this.#reporter.detach();
    for (const sequence of this.sequences) sequence.shadow = undefined;
    for (const sequence of this.sequences) if (sequence.fork !== undefined) this.#probes.end(sequence, 'abort');
  }

  /** Queues a plan; it is applied before the next step. */
  plan(plan: Plan): void {
    if (this.#reporter.attached) this.#queuedPlans.push(plan);
  }

  /** Counts a plan that did not come in time. */
  missPlan(): void {
    this.#totals.missedSteps += 1;
  }

  /** Applies plans, schedules, computes, samples and reports. Does nothing when there is nothing to do. */
  step(): void {
    this.#applyPlans();
    const scheduled = this.#scheduler.schedule();
    if (scheduled.length === 0) return;
    this.#totals.step += 1;
    const results = this.#model.forward(scheduled.map((one) => this.#chunkOf(one)));
    const ended = this.#advance(scheduled, results);
    this.#report(scheduled, results);
    for (const { sequence, reason } of ended) {
      // a probe that ended together with its parent is gone already
      if (this.#live.has(sequence)) this.#finish(sequence, reason);
    }
  }

  #applyPlans(): void {
    const plans = this.#queuedPlans;
    this.#queuedPlans = [];
    for (const plan of plans) {
      const requests = this.#plans.apply(plan);
      if (requests.length > 0) this.#reporter.ack(plan.sequence, this.#totals.step + 1, requests);
      for (const handle of plan.stopProbes) {
        const probe = this.#live.byHandle(handle);
        if (probe?.fork !== undefined) this.#probes.end(probe, 'stop');
      }
    }
  }

  #chunkOf({ sequence, count }: Scheduled): Chunk {
    const samples = count === sequence.pending;
    return {
      tokenIds: sequence.tokenIds.slice(sequence.computed, sequence.computed + count),
      position: sequence.computed,
      blocks: sequence.blocks,
      logits: samples,
      measure: samples && this.#reporter.wantsMasses(sequence, this.#totals.step),
      counts: countedQueries(sequence, this.#options.blockSize),
      queries: sequence.fork === undefined ? undefined : sequence.queries,
      shadow: sequence.shadow,
    };
  }

  /** Records what was computed and appends the next tokens. @returns the sequences that end with them */
  #advance(scheduled: readonly Scheduled[], results: readonly ChunkResult[]): Ended[] {
    return scheduled.flatMap(({ sequence, count }, i) => {
      sequence.computed += count;
      sequence.computedInAll += count;
      this.#scheduler.publish(sequence);
      const logits = results[i]!.logits;
      const reason = logits === undefined ? undefined : this.#append(sequence, logits);
      return reason === undefined ? [] : [{ sequence, reason }];
    });
  }

  #append(sequence: Sequence, logits: Float32Array): FinishReason | undefined {
    const { tokenId, logprob, end } = this.#decoder.append(sequence, logits);
    if (sequence.fork === undefined) {
      this.#totals.generatedTokens += 1;
      this.#sink.event(sequence.request.id, { type: 'token', tokenId, logprob });
    }
    return end;
  }

  #report(scheduled: readonly Scheduled[], results: readonly ChunkResult[]): void {
    const entries = scheduled.map(({ sequence }, i) => ({ sequence, ...results[i]! }));
    this.#totals.measuredRows += entries.filter(({ masses }) => masses !== undefined).length;
    this.#reporter.step(this.#totals.step, this.#scheduler.poolState, entries);
    if (this.#options.managed && !this.#reporter.attached) this.#totals.missedSteps += 1;
  }

  #finish(sequence: Sequence, reason: FinishReason): void {
    if (sequence.fork !== undefined) {
      this.#probes.end(sequence, reason);
      return;
    }
    if (sequence.probe !== undefined) this.#probes.end(sequence.probe, 'dropped');
    this.#scheduler.remove(sequence);
    this.#live.delete(sequence);
    this.#totals.finished[reason] += 1;
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

  stats(): EngineStats {
    return statsOf({
      totals: this.#totals,
      scheduler: this.#scheduler,
      probes: this.#probes,
      plans: this.#plans,
      reporter: this.#reporter,
    });
  }
}
