import { status } from '@grpc/grpc-js';
import type { Logger } from '../../common/logger.ts';
import type { AttachRequest, AttachResponse } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { CalibrationOptions } from '../calibration/calibrator.ts';
import type { Settings } from '../config.ts';
import { createMetrics, type Metrics } from '../observe/metrics.ts';
import { readingOf } from '../observe/readings.ts';
import type { RequestState } from '../request/request-state.ts';
import { createEngineSession } from './engine-session.ts';
import type { Refusal } from './hello.ts';
import type { EngineSession } from './session.ts';
import { createUnknownProfiles } from './unknown-profiles.ts';

/**
 * So many engines that have left keep their series: rates over what they did last, and alerts about those that are gone, need
 * them. Ids that are made anew with each start of an engine would otherwise add series for ever.
 */
const KEPT_GONE = 100;
/** So many are forgotten at a time: looking for the series of one costs as much. */
const FORGOTTEN_AT_ONCE = 50;

/** One end of an Attach stream, as the transport offers it. */
export interface Stream {
  send(message: AttachResponse): void;
  isBlocked(): boolean;
  refuse(refusal: Refusal): void;
}

/** Is told of each request that has ended. */
export type FinishedListener = (engineId: string, request: RequestState) => void;

export interface Engines {
  metrics: Metrics;
  /** Attached engines by id. */
  attached: ReadonlyMap<string, EngineSession>;
  open(stream: Stream): { receive(message: AttachRequest): void; close(): void };
  finishedListeners: Set<FinishedListener>;
  /** Asks engines for what becomes of single tokens, until the function that it returns was called. */
  watchHeld(): () => void;
  /** Applies changed settings to every engine. */
  govern(): void;
  close(): void;
}

/** The engines that are attached. Nothing is shared between them. The newest stream of an engine id wins. */
export function createEngines(deps: {
  settings: { current: Settings };
  logger: Logger;
  /** undefined: every head group is measured always. */
  calibration?: CalibrationOptions | undefined;
}): Engines {
  const { settings, logger, calibration } = deps;
  const attached = new Map<string, EngineSession>();
  const metrics = createMetrics(() => [...attached.values()].map(readingOf));

  /** Engines that have left, the first to go first. */
  const gone = new Set<string>();

  const onAttached = (session: EngineSession) => {
    const { engineId, instanceId, model, lockstep } = session.negotiated.hello;
    gone.delete(engineId);
    const older = attached.get(engineId);
    attached.set(engineId, session);
    older?.end({ code: status.ABORTED, details: `replaced by a newer stream of engine ${engineId} (${instanceId})` });
    metrics.streamUp.set({ engine: engineId }, 1);
    metrics.start('engine', { engine: engineId });
    logger.info({ engine: engineId, instance: instanceId, model, lockstep }, 'engine attached');
  };

  const onUnknownProfile = createUnknownProfiles(metrics, logger);

  const onClosed = (session: EngineSession) => {
    const { engineId, instanceId } = session.negotiated.hello;
    if (attached.get(engineId) !== session) return;
    attached.delete(engineId);
    metrics.streamUp.set({ engine: engineId }, 0);
    logger.info({ engine: engineId, instance: instanceId }, 'engine detached');
    gone.add(engineId);
    if (gone.size < KEPT_GONE + FORGOTTEN_AT_ONCE) return;
    const first = new Set([...gone].slice(0, FORGOTTEN_AT_ONCE));
    for (const id of first) gone.delete(id);
    void metrics.forget(first);
  };

  const heldWatches = new Set<object>();
  const configure = () => {
    for (const session of attached.values()) session.configure();
  };

  const finishedListeners = new Set<FinishedListener>();
  const onFinished: FinishedListener = (engineId, request) => {
    for (const listener of finishedListeners) listener(engineId, request);
  };

  return {
    metrics,
    attached,
    finishedListeners,
    watchHeld() {
      const watch = {};
      heldWatches.add(watch);
      configure();
      return () => {
        if (heldWatches.delete(watch)) configure();
      };
    },
    open(stream) {
      const session = createEngineSession({
        settings,
        metrics,
        logger,
        calibration,
        wantsHeld: () => heldWatches.size > 0,
        onAttached,
        onUnknownProfile,
        onFinished,
        ...stream,
      });
      return {
        receive: session.receive,
        close() {
          const ended = session.close();
          if (ended !== undefined) onClosed(ended);
        },
      };
    },
    govern() {
      for (const session of attached.values()) session.govern();
    },
    close() {
      for (const session of attached.values()) {
        session.end({ code: status.UNAVAILABLE, details: 'the policy service is shutting down' });
      }
    },
  };
}
