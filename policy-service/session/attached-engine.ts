import { isDeepStrictEqual } from 'node:util';
import type { AttachRequest, Configure, PoolState, Snapshot, Step } from '../../proto/gen/crystalkv/v1/policy.ts';
import { createCalibrator } from '../calibration/calibrator.ts';
import { createDecider } from '../decide/decide.ts';
import { wantedStatistics } from '../measure/kept-statistics.ts';
import { MeasureRate } from '../measure/measure-rate.ts';
import { MeasuredGroups } from '../measure/measured-groups.ts';
import { createEngineCounts } from '../observe/engine-counts.ts';
import type { BadMessageReason } from '../observe/labels.ts';
import type { RequestState } from '../request/request-state.ts';
import { createAckReader } from './acks.ts';
import type { NegotiatedHello } from './hello.ts';
import { PlanLedger } from './plan-ledger.ts';
import { createRequestReader } from './request-messages.ts';
import { RunningProbes } from './running-probes.ts';
import type { EngineSession, SessionDeps } from './session.ts';

export type AttachedEngine = ReturnType<typeof createAttachedEngine>;

/**
 * An engine whose Hello was accepted, and what each further message does. Messages, or parts of messages, that make no
 * sense are counted and dropped.
 */
export function createAttachedEngine(deps: SessionDeps, negotiated: NegotiatedHello, onEnd: () => void) {
  const { settings, logger } = deps;
  const { hello } = negotiated;
  const counts = createEngineCounts(deps.metrics, hello);
  const requests = new Map<number, RequestState>();
  const ledger = new PlanLedger();
  const measured = new MeasuredGroups(hello.headGroups);
  const probes = new RunningProbes({ negotiated, requests, counts, measured });
  const acks = createAckReader({
    negotiated,
    requests,
    ledger,
    counts,
    onUnknownRequest: (handle) => reader.forget(handle),
  });
  const rate = new MeasureRate();
  const calibrator = createCalibrator({
    negotiated,
    measured,
    options: deps.calibration,
    logger,
    onChosen: () => configure(),
  });
  let saidUnjudged = false;
  const onMergesUnjudged = ({ profile }: RequestState) => {
    if (saidUnjudged) return;
    saidUnjudged = true;
    logger.warn(
      { engine: hello.engineId, profile: profile.name },
      'this engine cannot mark what merges would let go: shadow mode and canaries judge evictions of whole blocks instead',
    );
  };
  const reader = createRequestReader({
    negotiated,
    requests,
    probes,
    calibrator,
    measured,
    settings,
    counts,
    onUnknownProfile: deps.onUnknownProfile,
    onMergesUnjudged,
    onFinished: (request) => deps.onFinished(hello.engineId, request),
  });
  const decider = createDecider({ negotiated, requests, settings, isCalibrating: () => calibrator.isSampling });
  let pool: PoolState = {
    freeBlocks: hello.poolBlocks,
    totalBlocks: hello.poolBlocks,
    waiting: 0,
    running: 0,
    preemptions: 0n,
  };
  let lastStep: bigint | undefined;
  /** A step of which more messages will come. */
  let openStep: bigint | undefined;
  /** A snapshot has to come before anything else is said of requests. */
  let snapshotIsLate = false;
  let configured: Configure | undefined;
  const wanted = wantedStatistics(negotiated, requests, settings);

  const count = (problem: BadMessageReason | undefined) => {
    if (problem !== undefined) counts.dropped(problem);
  };

  const takeSnapshot = (snapshot: Snapshot) => {
    // Parents first: a fork may be listed before the request that it was forked from.
    for (const one of snapshot.requests) if (one.parentHandle === undefined) count(reader.started(one, true));
    for (const one of snapshot.requests) if (one.parentHandle !== undefined) count(reader.started(one, true));
  };

  const takeStep = ({ step, pool: state, requests: rows, more }: Step): BadMessageReason | undefined => {
    if (lastStep !== undefined && step <= lastStep) return 'step_out_of_order';
    if (openStep !== undefined && step < openStep) return 'step_out_of_order';
    openStep = step;
    if (state !== undefined) {
      if (state.totalBlocks > hello.poolBlocks || state.freeBlocks > state.totalBlocks) return 'beyond_pool';
      pool = state;
    }
    for (const row of rows) count(reader.stepped(row));
    if (more) return undefined;
    lastStep = step;
    openStep = undefined;
    counts.step();
    decide(step);
    return undefined;
  };

  const decide = (basedOnStep: bigint) => {
    if (!hello.lockstep && deps.isBlocked()) return counts.missedStep();
    const begin = performance.now();
    const { plans, shadowed, expected } = decider.decide(pool);
    rate.step(expected);
    configure();
    for (const [request, blocks] of shadowed) counts.shadowEvicted(request, blocks);
    const stopProbes = probes.takeSettled();
    if (plans.length > 0 || stopProbes.length > 0 || hello.lockstep) {
      const sequence = ledger.issue(plans);
      deps.send({ message: { $case: 'plan', value: { sequence, basedOnStep, requests: plans, stopProbes } } });
    }
    counts.decided(performance.now() - begin);
  };

  /** Says what to measure, if that has changed. */
  const configure = () => {
    const measureEvery = rate.every(settings.current);
    const { maxTokens: probeTokens } = settings.current.defaultProfile.probe;
    const headGroups = measured.selected;
    const { statistics } = wanted;
    const reportHeld = deps.wantsHeld();
    if (
      configured?.measureEvery === measureEvery &&
      configured.probeTokens === probeTokens &&
      configured.headGroups === headGroups &&
      (configured.reportHeld ?? false) === reportHeld &&
      isDeepStrictEqual(configured.statistics, statistics)
    )
      return;
    configured = {
      ...{ headGroups: headGroups as number[], measureEvery, probeTokens, statistics },
      ...(reportHeld ? { reportHeld } : {}),
    };
    probes.expectTokens(probeTokens);
    deps.send({ message: { $case: 'configure', value: configured } });
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
      reader.govern();
      wanted.renew();
      configure();
    },
    configure: () => configure(),
    end(refusal) {
      onEnd();
      deps.refuse(refusal);
    },
  };

  /** After requests have begun: their profiles may need what the engine does not keep yet. */
  const met = (problem: BadMessageReason | undefined) => {
    wanted.renew();
    configure();
    return problem;
  };

  /** Returns why the message was dropped. */
  const take = (message: NonNullable<AttachRequest['message']>): BadMessageReason | undefined => {
    switch (message.$case) {
      case 'hello':
        return 'second_hello';
      case 'snapshot':
        if (snapshotIsLate) return 'late_snapshot';
        snapshotIsLate = true;
        takeSnapshot(message.value);
        return met(undefined);
      case 'started':
        snapshotIsLate = true;
        return met(reader.started(message.value, false));
      case 'step':
        snapshotIsLate = true;
        return takeStep(message.value);
      case 'preempted':
        return reader.preempted(message.value);
      case 'finished':
        return reader.finished(message.value);
      case 'ack':
        return acks.read(message.value);
      default:
        return 'undecodable';
    }
  };

  return {
    session,
    configure,
    receive: (message: NonNullable<AttachRequest['message']>) => count(take(message)),
    close: calibrator.close,
  };
}
