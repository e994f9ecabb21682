import type { Protection } from './evict.ts';

/** What the engine's core is started with: plain data, so that it can be sent to the worker thread. */
export interface CoreOptions {
  modelFolder: string;
  blockSize: number;
  poolBlocks: number;
  maxSequences: number;
  maxTokensPerStep: number;
  maxModelLength: number;
  protection: Protection;
  /** Token sequences that end the thinking phase. */
  endOfThinking: readonly (readonly number[])[];
  /** Tokens after which a new reasoning step begins. */
  segmentMarkers: readonly number[];
  /** Evictions may be applied at all (the switch that turns the project off). */
  enabled: boolean;
  /** Wait for the plan of step N, at most so long, before step N + 1 is scheduled; undefined: never wait. */
  lockstepTimeoutMs: number | undefined;
  /** A policy service is expected: steps without one count as missed. */
  managed: boolean;
}
