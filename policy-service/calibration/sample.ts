import { grown } from '../grown.ts';
import { addLinear } from '../measure/masses.ts';
import type { BlockTable } from '../request/block-table.ts';
import type { ProbeRun } from '../request/probe.ts';

/** Evictable blocks at the first snapshot, and the factor by which they grow from one snapshot to the next. */
const FIRST_SNAPSHOT = 4;
const SNAPSHOT_GROWTH = 1.25;
/** The most numbers in one request's rows. */
const MAX_NUMBERS = 1 << 20;
/** Snapshots that share the rows: enough for a request of a thousand blocks. */
const MAX_SNAPSHOTS = 24;

/** What was known of each block at each snapshot, `groups` numbers a row, and whether the block was read later. */
export interface Rows {
  readonly groups: number;
  /** The rows of snapshot i are `[snapshots[i], snapshots[i + 1])`. They compare with each other only. */
  readonly snapshots: readonly number[];
  /** Mean attention of each head group since the block's birth. */
  readonly history: Float32Array;
  /** The most attention of each head group in answer probes, decayed. */
  readonly probed: Float32Array;
  /** 1: a later step read the block. */
  readonly read: Uint8Array;
}

/**
 * Records what each head group says of the blocks of one request that keeps its whole cache. Snapshots are taken while
 * the reasoning grows; which blocks were worth keeping is known when the request ends.
 */
export class CalibrationSample {
  readonly #groups: number;
  readonly #blocksPerSnapshot: number;
  #sums = new Float64Array(0);
  #steps = new Float64Array(0);
  #peaks = new Float64Array(0);
  #history: number[] = [];
  #probed: number[] = [];
  #blocks: number[] = [];
  #tokens: number[] = [];
  #snapshots: number[] = [0];
  #nextSnapshot = FIRST_SNAPSHOT;

  constructor(groups: number) {
    this.#groups = groups;
    this.#blocksPerSnapshot = Math.max(8, Math.floor(MAX_NUMBERS / (2 * groups * MAX_SNAPSHOTS)));
  }

  /** Adds a step on which all groups were measured; `from` is the first column that belongs to `table.live`. */
  observe(codes: Uint8Array, columns: number, from: number, table: BlockTable): void {
    const { live, liveCount } = table;
    if (liveCount === 0) return;
    this.#reserve(live[liveCount - 1]! + 1);
    for (let i = 0; i < liveCount; i += 1) {
      const block = live[i]!;
      this.#steps[block]! += 1;
      addLinear(codes, this.#groups, columns, from + i, this.#sums, block * this.#groups);
    }
    const evictable = table.liveEvictable;
    if (evictable < this.#nextSnapshot || this.#snapshots.length > MAX_SNAPSHOTS) return;
    this.#nextSnapshot = Math.ceil(evictable * SNAPSHOT_GROWTH);
    this.#snapshot(live, evictable, table.tokens);
  }

  /** Adds a probe of the request, if it kept the attention of each head group. */
  fold(run: ProbeRun, decay: number): void {
    const { groupPeaks } = run;
    if (groupPeaks === undefined) return;
    this.#reserve(run.shared);
    for (let i = 0; i < this.#peaks.length; i += 1) this.#peaks[i]! *= decay;
    for (let column = 0; column < run.columns; column += 1) {
      for (let group = 0; group < this.#groups; group += 1) {
        const at = run.blocks[column]! * this.#groups + group;
        this.#peaks[at] = Math.max(this.#peaks[at]!, groupPeaks[column * this.#groups + group]!);
      }
    }
  }

  /** `lastRead`: tokens in the cache when a block was last read. */
  rows(lastRead: (block: number) => number): Rows {
    return {
      groups: this.#groups,
      snapshots: this.#snapshots,
      history: Float32Array.from(this.#history),
      probed: Float32Array.from(this.#probed),
      read: Uint8Array.from(this.#blocks, (block, i) => (lastRead(block) > this.#tokens[i]! ? 1 : 0)),
    };
  }

  #snapshot(live: Int32Array, evictable: number, tokens: number): void {
    const stride = Math.ceil(evictable / this.#blocksPerSnapshot);
    for (let i = 0; i < evictable; i += stride) {
      const block = live[i]!;
      const at = block * this.#groups;
      for (let group = 0; group < this.#groups; group += 1) {
        this.#history.push(this.#sums[at + group]! / this.#steps[block]!);
        this.#probed.push(this.#peaks[at + group]!);
      }
      this.#blocks.push(block);
      this.#tokens.push(tokens);
    }
    this.#snapshots.push(this.#blocks.length);
  }

  #reserve(blocks: number): void {
    this.#steps = grown(this.#steps, blocks);
    this.#sums = grown(this.#sums, blocks * this.#groups);
    this.#peaks = grown(this.#peaks, blocks * this.#groups);
  }
}
