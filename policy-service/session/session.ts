import type { Logger } from '../../common/logger.ts';
import type { AttachResponse, PoolState } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { CalibrationOptions } from '../calibration/calibrator.ts';
import type { Settings } from '../config.ts';
import type { Metrics } from '../observe/metrics.ts';
import type { RequestState } from '../request/request-state.ts';
import type { NegotiatedHello, Refusal } from './hello.ts';

export interface SessionDeps {
  settings: { current: Settings };
  metrics: Metrics;
  logger: Logger;
  /** undefined: every head group is measured always. */
  calibration: CalibrationOptions | undefined;
  send(message: AttachResponse): void;
  /** Whether earlier messages are still unread: the engine is slower than its plans. */
  isBlocked(): boolean;
  /** Ends the stream with an error. */
  refuse(refusal: Refusal): void;
  /** Whether somebody watches what becomes of single tokens. */
  wantsHeld(): boolean;
  /** Called once, when the Hello was accepted and before anything is sent. */
  onAttached(session: EngineSession): void;
  onUnknownProfile(name: string): void;
  /** Called when the engine says that a request has ended, with its last state, which is kept nowhere. */
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
  /** Tells the engine what to measure and report, if that has changed. */
  configure(): void;
  /** Ends the stream. */
  end(refusal: Refusal): void;
}
