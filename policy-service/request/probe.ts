import { grown } from '../grown.ts';
import { raiseGroupPeaks, raisePeaks } from '../measure/masses.ts';
import type { MeasuredGroups } from '../measure/measured-groups.ts';
import type { ProbeReading } from '../policies/policy.ts';
import type { ProbeOptions } from './probe-schedule.ts';

/** The running maximum over a request's answer probes. Logical indices stay valid when the cache is recomputed. */
export class ProbeMemory implements ProbeReading {
  count = 0;
  seen = 0;
  masses = new Float64Array(64);

  /** The most that any probe found, without decay. */
  strongest = new Float64Array(64);

  /**
   * Adds a probe: earlier findings keep the share `decay`, then the maximum with the new ones is taken. A block that
   * was younger than `ageTokens` at the probe counts in proportion to its age: an answer reads what is near, needed or
   * not.
   */
  fold(run: ProbeRun, { decay, ageTokens }: Pick<ProbeOptions, 'decay' | 'ageTokens'>): void {
    this.masses = grown(this.masses, run.shared);
    this.strongest = grown(this.strongest, run.shared);
    this.seen = Math.max(this.seen, run.shared);
    for (let block = 0; block < this.seen; block += 1) this.masses[block]! *= decay;
    for (let i = 0; i < run.columns; i += 1) {
      const block = run.blocks[i]!;
      const peak = run.peaks[i]!;
      const grown = ageTokens === 0 ? 1 : Math.min(1, run.ageOf(block) / ageTokens);
      if (peak * grown > this.masses[block]!) this.masses[block] = peak * grown;
      if (peak > this.strongest[block]!) this.strongest[block] = peak;
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
  /** The same for each head group, `groups` numbers a block; for calibration samples only. */
  readonly groupPeaks: Float64Array | undefined;
  steps = 0;
  /** Steps since it last read a new block; 0 until it has read one. */
  unchangedSteps = 0;
  #readBlocks = 0;
  readonly #readShare: number;
  readonly #sharedTokens: number;
  readonly #holes: number;
  readonly #blockSize: number;

  /**
   * @param readShare a block is read when one head group puts at least this share of its attention on it
   * @param groupPeaks head groups to keep apart as well
   */
  constructor(
    parent: number,
    sharedTokens: number,
    holes: readonly number[],
    blockSize: number,
    readShare: number,
    groupPeaks = 0,
  ) {
    this.parent = parent;
    this.shared = Math.floor(sharedTokens / blockSize);
    this.#blockSize = blockSize;
    this.#readShare = readShare;
    this.#sharedTokens = sharedTokens;
    const gone = new Set(holes.filter((block) => block < Math.ceil(sharedTokens / blockSize)));
    this.#holes = gone.size;
    this.blocks = Int32Array.from({ length: this.shared }, (_, block) => block).filter((block) => !gone.has(block));
    this.columns = this.blocks.length;
    this.peaks = new Float64Array(this.columns);
    this.groupPeaks = groupPeaks === 0 ? undefined : new Float64Array(this.columns * groupPeaks);
  }

  /** Adds a step of the fork. false, and nothing added, when the length of `codes` does not fit. */
  add(codes: Uint8Array, computedTokens: number, measured: MeasuredGroups): boolean {
    const columns = Math.ceil(computedTokens / this.#blockSize) - this.#holes;
    const groups = measured.in(codes.length, columns);
    if (columns < this.columns || groups === undefined) return false;
    raisePeaks(codes, groups, columns, 0, this.columns, this.peaks);
    if (this.groupPeaks?.length === this.columns * groups) {
      raiseGroupPeaks(codes, groups, columns, this.columns, this.groupPeaks);
    }
    this.steps += 1;
    let read = 0;
    for (let i = 0; i < this.columns; i += 1) if (this.peaks[i]! >= this.#readShare) read += 1;
    this.unchangedSteps = read > this.#readBlocks || read === 0 ? 0 : this.unchangedSteps + 1;
    this.#readBlocks = read;
    return true;
  }

  /** Tokens from the middle of a block to the probe. */
  ageOf(block: number): number {
    return this.#sharedTokens - (block + 0.5) * this.#blockSize;
  }
}
