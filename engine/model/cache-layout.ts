/** Where a model keeps its cache; sizes in bytes. Layouts are in kernels/assembly/attention.ts. */
export interface CacheLayout {
  layers: number;
  kvHeads: number;
  headDim: number;
  blockSize: number;
  /** Blocks, including the null block. */
  blocks: number;
  maxPositions: number;
  keys: number;
  values: number;
  layerBytes: number;
  headBytes: number;
  /** Rotation tables [maxPositions][headDim / 2]. */
  cos: number;
  sin: number;
}

/** Blocks of one sequence, all full, by their number in the pool. */
export interface MergeBlocks {
  /** They hold the tokens that are kept. */
  into: readonly number[];
  /** They are freed. */
  from: readonly number[];
  /** Other blocks of the sequence: repetitions in them count, but they do not change. */
  beside: readonly number[];
}

/**
 * Tokens of one layer and KV head, by their slots: number of the block in the pool * block size + place in the block.
 */
export interface TokenSlots {
  /** Those that may go. */
  candidates: Int32Array;
  /** The output's others in full blocks: repetitions in them count. */
  beside: Int32Array;
}

/** The slots of some blocks, one after the other. */
export function slotsOf(blocks: readonly number[], blockSize: number): Int32Array {
  return Int32Array.from(
    { length: blocks.length * blockSize },
    (_, i) => blocks[Math.floor(i / blockSize)]! * blockSize + (i % blockSize),
  );
}
