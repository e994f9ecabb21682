import { meanMass } from './masses.ts';
import { type ProbeReading, withRoomFor } from './policies/policy.ts';

/** The running maximum over a request's answer probes. Logical indices stay valid when the cache is recomputed. */
export class ProbeMemory implements ProbeReading {
  count = 0;
  seen = 0;
  masses = new Float64Array(64);
  expected = 0;

  /**
   * Takes a probe in: everything known loses `1 - decay`, then the maximum with the probe's mean mass per step.
   * `old` delimits the blocks that the expectation for unseen blocks is taken from: those beyond the prompt and older
   * than the protected window, since an answer reads its own neighbourhood for other reasons.
   */
  fold(run: ProbeRun, decay: number, old: { from: number; to: number }): void {
    this.masses = withRoomFor(this.masses, run.shared, 0);
    const blocks = Math.max(this.seen, run.shared);
    for (let block = 0; block < blocks; block += 1) this.masses[block]! *= decay;
    let sum = 0;
    let oldBlocks = 0;
    for (let i = 0; i < run.columns; i += 1) {
      const block = run.blocks[i]!;
      const mass = run.sums[i]! / run.steps;
      if (mass > this.masses[block]!) this.masses[block] = mass;
      if (block >= old.from && block < old.to) {
        sum += mass;
        oldBlocks += 1;
      }
    }
    if (oldBlocks > 0) this.expected = sum / oldBlocks;
    else if (this.count === 0) this.expected = 0;
    this.seen = blocks;
    this.count += 1;
  }
}

let scratch = new Float64Array(256);

/** One answer probe while it runs: the fork's masses, summed over its steps, for the blocks that it shares. */
export class ProbeRun {
  readonly parent: number;
  /** Blocks wholly below the tokens shared with the parent: logical indices below this. */
  readonly shared: number;
  /** The shared blocks that the fork holds, ascending: its first columns. */
  readonly blocks: Int32Array;
  readonly columns: number;
  readonly sums: Float64Array;
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
    this.sums = new Float64Array(this.columns);
  }

  /** Adds a step of the fork. false, and nothing added, when the length of `codes` does not fit. */
  add(codes: Uint8Array, computedTokens: number, groups: number): boolean {
    const columns = Math.ceil(computedTokens / this.#blockSize) - this.#holes;
    if (columns < this.columns || codes.length !== groups * columns) return false;
    if (scratch.length < this.columns) scratch = new Float64Array(this.columns * 2);
    meanMass(codes, groups, columns, 0, this.columns, scratch);
    for (let i = 0; i < this.columns; i += 1) this.sums[i]! += scratch[i]!;
    this.steps += 1;
    return true;
  }
}
