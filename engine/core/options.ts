import type { WeightFormat } from '../model/matrix.ts';
import type { Protection } from './evict.ts';

/** Options of the engine's core: plain data, so that it can be sent to the worker thread. */
export interface CoreOptions {
  modelFolder: string;
  weights: WeightFormat;
  blockSize: number;
  poolBlocks: number;
  maxSequences: number;
  maxTokensPerStep: number;
  maxModelLength: number;
  protection: Protection;
  /** Token sequences that end the thinking phase. */
  endOfThinking: readonly (readonly number[])[];
  /** What a probe appends to end the thinking; undefined: there are no probes. */
  probeSuffix: readonly number[] | undefined;
  /** Tokens after which a new reasoning step begins. */
  segmentMarkers: readonly number[];
  /** Whether evictions may be applied at all. */
  enabled: boolean;
  /** Longest wait for the plan of step N before step N + 1 is scheduled; undefined: no lockstep, no wait. */
  lockstepTimeoutMs: number | undefined;
  /** Whether a policy service is expected. Steps without one count as missed. */
  managed: boolean;
}
