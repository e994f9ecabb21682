import { raisePeaks } from './masses.ts';
import { type ProbeReading, withRoomFor } from './policies/policy.ts';

/** The running maximum over a request's answer probes. Logical indices stay valid when the cache is recomputed. */
export class ProbeMemory implements ProbeReading {
  count = 0;
  seen = 0;
  masses = new Float64Array(64);

  /** Takes a probe in: everything known loses `1 - decay`, then the maximum with what the probe found. */
  fold(run: ProbeRun, decay: number): void {
    this.masses = withRoomFor(this.masses, run.shared, 0);
    this.seen = Math.max(this.seen, run.shared);
    for (let block = 0; block < this.seen; block += 1) this.masses[block]! *= decay;
    for (let i = 0; i < run.columns; i += 1) {
      const block = run.blocks[i]!;
      if (run.peaks[i]! > this.masses[block]!) this.masses[block] = run.peaks[i]!;
    }
    this.count += 1;
  }
}

/** One answer probe while it runs: what its answer read of the blocks that it shares. */
export class ProbeRun {
  readonly parent: number;
  /** Blocks wholly below the tokens shared with the parent: logical indices below this. */
  readonly shared: number;
  /** The shared blocks that the fork holds, ascending: its first columns. */
  readonly blocks: Int32Array;
  readonly columns: number;
  /** The most attention that one head group put on each of them at one step. */
  readonly peaks: Float64Array;
  steps = 0;
  readonly #holes: number;
  readonly #blockSize: number;

  constructor(parent: number, sharedTokens: number, holes: readonly number[], blockSize: number) {
    this.parent = parent;
    this.shared = Math.floor(sharedTokens / blockSize);
    this.#blockSize = blockSize;
    const gone = new Set(holes.filter((block) => block < Math.ceil(sharedTokens / blockSize)));
    this.#holes = gone.size;
    this.blocks = Int32Array.from({ length: this.shared }, (_, block) => block).filter((block) => !gone.has(block));
    this.columns = this.blocks.length;
    this.peaks = new Float64Array(this.columns);
  }

  /** Adds a step of the fork. false, and nothing added, when the length of `codes` does not fit. */
  add(codes: Uint8Array, computedTokens: number, groups: number): boolean {
    const columns = Math.ceil(computedTokens / this.#blockSize) - this.#holes;
    if (columns < this.columns || codes.length !== groups * columns) return false;
    raisePeaks(codes, groups, columns, 0, this.columns, this.peaks);
    this.steps += 1;
    return true;
  }
}
