import type { Logger } from '../../common/logger.ts';
import {
  type Ack,
  type AttachRequest,
  type AttachResponse,
  type Configure,
  type Finished,
  FinishReason,
  type PoolState,
  type Preempted,
  type RequestStep,
  type Started,
  type Step,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import { type CalibrationOptions, createCalibrator } from '../calibration/calibrator.ts';
import type { Settings } from '../config.ts';
import { createDecider } from '../decide/decide.ts';
import { MeasureRate } from '../measure/measure-rate.ts';
import { MeasuredGroups } from '../measure/measured-groups.ts';
import type { BadMessageReason } from '../observe/labels.ts';
import { type Metrics, openRequest } from '../observe/metrics.ts';
import { governanceOf } from '../request/governance.ts';
import { RequestState } from '../request/request-state.ts';
import { takeMasses } from '../request/take-masses.ts';
import { createAckReader } from './acks.ts';
import type { NegotiatedHello, Refusal } from './hello.ts';
import { PlanLedger } from './plan-ledger.ts';
import { RunningProbes } from './running-probes.ts';

export interface SessionDeps {
  settings: { current: Settings };
  metrics: Metrics;
  logger: Logger;
  /** undefined: every head group is measured always. */
  calibration: CalibrationOptions | undefined;
  send(message: AttachResponse): void;
  /** Whether what was sent has not been read yet: the engine is slower than its plans. */
  isBlocked(): boolean;
  /** Ends the stream with an error. */
  refuse(refusal: Refusal): void;
  /** Called once, when the Hello was accepted and before anything is sent. */
  onAttached(session: EngineSession): void;
  /** Called when the engine says that a request has ended: with its last state, which is kept nowhere. */
  onFinished(engineId: string, request: RequestState): void;
}

/** What the rest of the service may ask of an attached engine. */
export interface EngineSession {
  readonly negotiated: NegotiatedHello;
  readonly requests: ReadonlyMap<number, RequestState>;
  readonly pool: PoolState;
  readonly step: bigint;
  /** Applies changed settings to everything that runs. */
  govern(): void;
  /** Ends the stream. */
  end(refusal: Refusal): void;
}

/** A request that was given up says nothing of how long its answer would have been. */
const ENDED: ReadonlySet<FinishReason> = new Set([FinishReason.FINISH_REASON_STOP, FinishReason.FINISH_REASON_LENGTH]);

const EMPTY_POOL: PoolState = { freeBlocks: 0, totalBlocks: 0, waiting: 0, running: 0, preemptions: 0n };

export type AttachedEngine = ReturnType<typeof createAttachedEngine>;

/**
 * An engine whose Hello was accepted: its requests, and what every further message does to them. Messages and parts
 * of messages that make no sense are counted and dropped.
 */
export function createAttachedEngine(deps: SessionDeps, negotiated: NegotiatedHello, onEnd: () => void) {
  const { settings, metrics, logger } = deps;
  const { hello } = negotiated;
  const engine = hello.engineId;
  const requests = new Map<number, RequestState>();
  const ledger = new PlanLedger();
  const bad = (reason: BadMessageReason) => metrics.badMessages.inc({ reason });
  const measured = new MeasuredGroups(hello.headGroups);
  const probes = new RunningProbes({ negotiated, requests, metrics, measured });
  const acks = createAckReader({ negotiated, requests, ledger, metrics });
  const rate = new MeasureRate();
  const calibrator = createCalibrator({
    negotiated,
    measured,
    options: deps.calibration,
    logger,
    onChosen: () => configure(),
  });
  const decider = createDecider({ negotiated, requests, settings, isCalibrating: () => calibrator.isSampling });
  let pool: PoolState = { ...EMPTY_POOL, totalBlocks: hello.poolBlocks, freeBlocks: hello.poolBlocks };
  let lastStep: bigint | undefined;
  let openStep: bigint | undefined;
  let any = false;

  const labelsOf = ({ profile, policyName, modeLabel: mode }: RequestState) => {
    return { engine, profile: profile.name, policy: policyName, mode };
  };

  const preempt = (state: RequestState, epoch: number) => {
    state.preempt(epoch);
    metrics.preemptions.inc({ engine });
  };

  const start = (started: Started, cold: boolean) => {
    if (requests.has(started.handle) || probes.has(started.handle)) return bad('duplicate_handle');
    const { maxRequestTokens } = settings.current.limits;
    if (started.promptTokens > maxRequestTokens || started.computedTokens > maxRequestTokens) return bad('too_long');
    if (started.parentHandle !== undefined) {
      if (!probes.start(started, started.parentHandle)) bad('unknown_parent');
      return;
    }
    const calibrates = !cold && calibrator.wantsRequest;
    const governed = { options: started.options, canaryKey: canaryKeyOf(started), calibrates };
    const state = new RequestState(
      {
        handle: started.handle,
        crystalkvId: started.crystalkvId,
        choiceIndex: started.choiceIndex,
        promptTokens: started.promptTokens,
        epoch: started.epoch,
        cold,
        blockSize: hello.blockSize,
        sinkTokens: hello.sinkTokens,
        recentTokens: hello.recentTokens,
        headGroups: hello.headGroups,
        probeSuffixTokens: negotiated.probeSuffixTokens,
        canMerge: negotiated.canMerge,
        measured,
      },
      governanceOf(governed, settings.current, (name) => {
        metrics.unknownProfiles.inc();
        unknownProfile(logger, name);
      }),
      started.options,
    );
    state.table.advance(started.computedTokens);
    state.table.markHoles(started.evicted);
    requests.set(started.handle, state);
    calibrator.watch(state);
    openRequest(metrics, labelsOf(state));
  };

  const row = (step: RequestStep) => {
    const state = requests.get(step.handle);
    if (state === undefined) {
      const problem = probes.step(step);
      if (problem !== undefined) bad(problem);
      return;
    }
    if (step.epoch < state.epoch) return bad('stale_epoch');
    if (step.computedTokens > settings.current.limits.maxRequestTokens) return bad('too_long');
    // The report of the preemption was lost: the epoch says it as well.
    if (step.epoch > state.epoch) preempt(state, step.epoch);
    if (step.computedTokens < state.tokens) return bad('tokens_went_back');
    state.advance(step.computedTokens, step.phase, step.segmentStarts);
    if (step.masses.length > 0) {
      const { regretted, missedMass, steps } = state.shadow;
      const problem = takeMasses(state, step.masses);
      if (problem === undefined) metrics.measuredSteps.inc({ engine });
      else bad(problem);
      if (state.shadow.steps > steps) {
        const labels = labelsOf(state);
        metrics.shadowSteps.inc(labels);
        metrics.shadowRegretted.inc(labels, state.shadow.regretted - regretted);
        metrics.shadowMissedMass.inc(labels, state.shadow.missedMass - missedMass);
      }
    }
    state.admit();
  };

  const onStep = (step: Step) => {
    if (lastStep !== undefined && step.step <= lastStep) return bad('step_out_of_order');
    if (openStep !== undefined && step.step < openStep) return bad('step_out_of_order');
    openStep = step.step;
    if (step.pool !== undefined) pool = step.pool;
    for (const request of step.requests) row(request);
    if (step.more) return;
    lastStep = step.step;
    openStep = undefined;
    metrics.steps.inc({ engine });
    decide(step.step);
  };

  const decide = (basedOnStep: bigint) => {
    if (!hello.lockstep && deps.isBlocked()) {
      metrics.missedSteps.inc({ engine });
      return;
    }
    const begin = performance.now();
    const { plans, shadowed, expected } = decider.decide(pool);
    rate.step(expected);
    configure();
    for (const [state, blocks] of shadowed) metrics.shadowEvicted.inc(labelsOf(state), blocks);
    const stopProbes = probes.takeSettled();
    if (plans.length > 0 || stopProbes.length > 0 || hello.lockstep) {
      const sequence = ledger.issue(plans);
      deps.send({ message: { $case: 'plan', value: { sequence, basedOnStep, requests: plans, stopProbes } } });
    }
    metrics.decisionSeconds.observe({ engine }, (performance.now() - begin) / 1000);
  };

  const onPreempted = ({ handle, epoch }: Preempted) => {
    const state = requests.get(handle);
    if (state === undefined) {
      if (!probes.has(handle)) bad('unknown_handle');
    } else if (epoch <= state.epoch) bad('stale_epoch');
    else preempt(state, epoch);
  };

  const countFinished = (state: RequestState, generatedTokens: number) => {
    const labels = labelsOf(state);
    metrics.finishedRequests.inc(labels);
    metrics.finishedTokens.inc(labels, generatedTokens);
    metrics.peakBlocks.inc(labels, state.peakResident);
    metrics.fullPeakBlocks.inc(labels, state.peakFull);
  };

  const onFinished = (finished: Finished) => {
    const state = requests.get(finished.handle);
    if (state !== undefined) {
      requests.delete(finished.handle);
      calibrator.ended(state, ENDED.has(finished.reason));
      if (ENDED.has(finished.reason)) countFinished(state, finished.generatedTokens);
      return deps.onFinished(engine, state);
    }
    if (!probes.finish(finished)) bad('unknown_handle');
  };

  const onAck = (ack: Ack) => {
    const problem = acks.read(ack);
    if (problem !== undefined) bad(problem);
  };

  const session: EngineSession = {
    negotiated,
    requests,
    get pool() {
      return pool;
    },
    get step() {
      return lastStep ?? 0n;
    },
    govern() {
      decider.forget();
      for (const state of requests.values()) {
        const { options, start, sample } = state;
        const governed = { options, canaryKey: canaryKeyOf(start), calibrates: sample !== undefined };
        state.govern(governanceOf(governed, settings.current));
      }
      configure();
    },
    end(refusal) {
      onEnd();
      deps.refuse(refusal);
    },
  };

  let configured: Configure | undefined;
  /** Says what to measure, when it differs from what was said last. */
  const configure = () => {
    const measureEvery = rate.every(settings.current);
    const { maxTokens: probeTokens } = settings.current.defaultProfile.probe;
    const headGroups = measured.selected;
    if (
      configured?.measureEvery === measureEvery &&
      configured.probeTokens === probeTokens &&
      configured.headGroups === headGroups
    )
      return;
    const value = { headGroups: headGroups as number[], measureEvery, probeTokens, statistics: undefined };
    configured = value;
    probes.expectTokens(value.probeTokens);
    deps.send({ message: { $case: 'configure', value } });
  };

  const receive = (message: NonNullable<AttachRequest['message']>) => {
    switch (message.$case) {
      case 'hello':
        return bad('second_hello');
      case 'snapshot':
        if (any) return bad('late_snapshot');
        any = true;
        // Parents first: a fork may be listed before the request that it was forked from.
        for (const one of message.value.requests) if (one.parentHandle === undefined) start(one, true);
        for (const one of message.value.requests) if (one.parentHandle !== undefined) start(one, true);
        return;
      case 'started':
        any = true;
        return start(message.value, false);
      case 'step':
        any = true;
        return onStep(message.value);
      case 'preempted':
        return onPreempted(message.value);
      case 'finished':
        return onFinished(message.value);
      case 'ack':
        return onAck(message.value);
      default:
        return bad('undecodable');
    }
  };

  return { session, receive, configure, close: calibrator.close };
}

/** Requests that did not come through a gateway are told apart by their handles. */
function canaryKeyOf({ crystalkvId, handle }: { crystalkvId: string; handle: number }): string {
  return crystalkvId === '' ? `handle ${handle}` : crystalkvId;
}

const warned = new WeakMap<Logger, Set<string>>();

/** Logs a name once; requests choose the names, so at most a hundred of them, cut to a sane length. */
function unknownProfile(logger: Logger, name: string): void {
  const names = warned.get(logger) ?? new Set<string>();
  warned.set(logger, names);
  if (names.has(name) || names.size >= 100) return;
  names.add(name);
  logger.warn({ profile: name.slice(0, 64) }, 'unknown profile, the default one is used');
}
