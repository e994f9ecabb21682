import type { Configure, Plan } from '../proto/gen/crystalkv/v1/policy.ts';
import type { CoreOptions } from './core/options.ts';
import type { EngineStats, GenerateEvent, GenerateRequest, Report } from './types.ts';

/** Main thread to worker. */
export type ToWorker =
  | { type: 'submit'; request: GenerateRequest }
  | { type: 'abort'; id: string }
  | { type: 'attach'; configure: Configure }
  | { type: 'configure'; configure: Configure }
  | { type: 'detach' }
  | { type: 'plan'; plan: Plan }
  | { type: 'close' };

/** Worker to main thread. */
export type FromWorker =
  | { type: 'ready'; bytesPerBlock: number; stats: EngineStats }
  | { type: 'report'; message: Report }
  | { type: 'events'; events: readonly { id: string; event: GenerateEvent }[]; stats: EngineStats };

export type WorkerData = CoreOptions;
