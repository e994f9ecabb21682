import { Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { Arena, Kernels } from '../kernels/kernels.ts';
import type { CacheLayout, MergeBlocks } from './cache-layout.ts';
import { KEPT_STATISTICS, type TokenStatistics } from './token-statistics.ts';

/** Similarities are compared in steps of this size: what differs by rounding only is equal. */
const RESOLUTION = 1e-3;

/** Statistics that are computed when blocks are merged, beside those that are kept. */
const COMPUTED: readonly Statistic[] = [
  Statistic.STATISTIC_DISTINCT_KEYS,
  Statistic.STATISTIC_DISTINCT_VALUES,
  Statistic.STATISTIC_KEY_SIMILARITY,
  Statistic.STATISTIC_KEY_DIFFERENCE,
  Statistic.STATISTIC_VALUE_RANGE,
  Statistic.STATISTIC_POSITION,
  Statistic.STATISTIC_RANDOM,
];

/** The statistics by which this engine can value tokens. */
export const KNOWN_STATISTICS: readonly Statistic[] = [...KEPT_STATISTICS, ...COMPUTED];

/** Room for the tokens of one head group: vectors [tokens][headDim], positions and repetition [tokens]. */
export interface FigureBuffer {
  vectors: number;
  positions: number;
  repetition: number;
}

/** Figures of the tokens of some blocks, one head group at a time; definitions are in the contract (`Statistic`). */
export class TokenFigures {
  readonly #arena: Arena;
  readonly #kernels: Kernels;
  readonly #layout: CacheLayout;
  readonly #buffer: FigureBuffer;
  readonly #statistics: TokenStatistics;
  readonly #positionsOf: (layer: number, block: number, head: number) => Int32Array;

  constructor(
    arena: Arena,
    kernels: Kernels,
    layout: CacheLayout,
    buffer: FigureBuffer,
    statistics: TokenStatistics,
    positionsOf: (layer: number, block: number, head: number) => Int32Array,
  ) {
    this.#arena = arena;
    this.#kernels = kernels;
    this.#layout = layout;
    this.#buffer = buffer;
    this.#statistics = statistics;
    this.#positionsOf = positionsOf;
  }

  /** Positions of the tokens in `blocks`, one block after the other; a copy. */
  positions(layer: number, head: number, blocks: readonly number[]): Int32Array {
    const { blockSize } = this.#layout;
    const positions = new Int32Array(blocks.length * blockSize);
    for (const [i, block] of blocks.entries()) positions.set(this.#positionsOf(layer, block, head), i * blockSize);
    return positions;
  }

  /** A figure of the candidates: the tokens of `into`, then those of `from`. */
  of(statistic: Statistic, layer: number, head: number, { into, from, beside }: MergeBlocks): ArrayLike<number> {
    const candidates = [...into, ...from];
    switch (statistic) {
      case Statistic.STATISTIC_DISTINCT_KEYS:
        return this.#distinct(layer, head, candidates, beside, (blocks, at) =>
          this.#plainKeys(layer, head, blocks, at),
        );
      case Statistic.STATISTIC_DISTINCT_VALUES:
        return this.#distinct(layer, head, candidates, beside, (blocks) => this.#unitValues(layer, head, blocks));
      case Statistic.STATISTIC_KEY_SIMILARITY:
        return this.#similarity(layer, head, candidates);
      case Statistic.STATISTIC_KEY_DIFFERENCE:
        return this.#difference(layer, head, candidates);
      case Statistic.STATISTIC_VALUE_RANGE:
        return this.#valueRange(layer, head, candidates);
      default: {
        const { blockSize } = this.#layout;
        const out = new Float32Array(candidates.length * blockSize);
        for (const [i, block] of candidates.entries()) {
          out.set(this.#statistics.read(statistic, layer, block, head), i * blockSize);
        }
        return out;
      }
    }
  }

  /** Minus the highest cosine with a later token's vector, in steps of RESOLUTION. */
  #distinct(
    layer: number,
    head: number,
    candidates: readonly number[],
    beside: readonly number[],
    write: (blocks: readonly number[], positionsAt: number) => void,
  ): Float64Array {
    const { blockSize, headDim } = this.#layout;
    const { vectors, positions: at, repetition } = this.#buffer;
    const all = [...candidates, ...beside];
    this.#arena.ints(at, all.length * blockSize).set(this.positions(layer, head, all));
    write(all, at);
    const count = candidates.length * blockSize;
    this.#kernels.repetition(repetition, vectors, at, count, all.length * blockSize, headDim);
    return Float64Array.from(
      this.#arena.floats(repetition, count),
      (value) => -Math.round(value / RESOLUTION) * RESOLUTION,
    );
  }

  /** Writes keys as they were before rotation, of length 1. */
  #plainKeys(layer: number, head: number, blocks: readonly number[], positionsAt: number): void {
    const { blockSize, headDim, cos, sin, keys } = this.#layout;
    for (const [i, block] of blocks.entries()) {
      const out = this.#buffer.vectors + i * blockSize * headDim * 4;
      const source = keys + this.#offset(layer, block, head);
      this.#kernels.plainKeys(out, source, positionsAt + i * blockSize * 4, blockSize, headDim, cos, sin);
    }
  }

  #unitValues(layer: number, head: number, blocks: readonly number[]): void {
    const { blockSize, headDim } = this.#layout;
    const out = this.#arena.floats(this.#buffer.vectors, blocks.length * blockSize * headDim);
    for (const [i, block] of blocks.entries()) {
      const values = this.#values(layer, head, block);
      for (let j = 0; j < blockSize; j++) {
        out.set(unit(values.subarray(j * headDim, (j + 1) * headDim)), (i * blockSize + j) * headDim);
      }
    }
  }

  /** The mean over the others is that of all, less the token's own 1. */
  #similarity(layer: number, head: number, candidates: readonly number[]): Float64Array {
    const { blockSize, headDim, keys } = this.#layout;
    const vectors = candidates.flatMap((block) => {
      const stored = this.#arena.floats(keys + this.#offset(layer, block, head), blockSize * headDim);
      return Array.from({ length: blockSize }, (_, j) =>
        unit(Float64Array.from({ length: headDim }, (_, d) => stored[d * blockSize + j]!)),
      );
    });
    const sum = sumOf(vectors, headDim);
    const others = Math.max(1, vectors.length - 1);
    return Float64Array.from(vectors, (vector) => (dot(vector, sum) - dot(vector, vector)) / others);
  }

  #difference(layer: number, head: number, candidates: readonly number[]): Float64Array {
    const { blockSize, headDim } = this.#layout;
    const { vectors: at, positions } = this.#buffer;
    const count = candidates.length * blockSize;
    this.#arena.ints(positions, count).set(this.positions(layer, head, candidates));
    this.#plainKeys(layer, head, candidates, positions);
    const flat = this.#arena.floats(at, count * headDim);
    const vectors = Array.from({ length: count }, (_, i) => flat.subarray(i * headDim, (i + 1) * headDim));
    const middle = unit(sumOf(vectors, headDim));
    return Float64Array.from(vectors, (vector) => -dot(vector, middle));
  }

  #valueRange(layer: number, head: number, candidates: readonly number[]): Float64Array {
    const { blockSize, headDim } = this.#layout;
    return Float64Array.from(
      candidates.flatMap((block) => {
        const values = this.#values(layer, head, block);
        return Array.from({ length: blockSize }, (_, j) => {
          const value = values.subarray(j * headDim, (j + 1) * headDim);
          return Math.max(...value) - Math.min(...value);
        });
      }),
    );
  }

  #values(layer: number, head: number, block: number): Float32Array {
    const { blockSize, headDim, values } = this.#layout;
    return this.#arena.floats(values + this.#offset(layer, block, head), blockSize * headDim);
  }

  #offset(layer: number, block: number, head: number): number {
    const { layerBytes, headBytes, kvHeads } = this.#layout;
    return layer * layerBytes + (block * kvHeads + head) * headBytes;
  }
}

type Vector = Float32Array | Float64Array;

function dot(a: Vector, b: Vector): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** Scales vectors to length 1; a vector of zeros stays. */
function unit(vector: Vector): Float64Array {
  const length = Math.sqrt(dot(vector, vector));
  return Float64Array.from(vector, (value) => (length > 0 ? value / length : 0));
}

function sumOf(vectors: readonly Vector[], size: number): Float64Array {
  const sum = new Float64Array(size);
  for (const vector of vectors) for (let d = 0; d < size; d++) sum[d]! += vector[d]!;
  return sum;
}
