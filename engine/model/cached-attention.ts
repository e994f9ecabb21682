import type { Arena, Kernels } from '../kernels/kernels.ts';
import type { Row } from './batch-row.ts';
import type { CacheLayout } from './cache-layout.ts';
import type { BlockMerger } from './merge.ts';
import type { MarkedReads } from './shadow-cache.ts';
import type { TokenStatistics } from './token-statistics.ts';

/** Byte offsets in the arena. */
export interface AttentionRoom {
  /** [maxTokens][(heads + 2 * kvHeads) * headDim] Queries, keys and values of the step, rotated. */
  qkv: number;
  /** [maxTokens][heads * headDim] What attention gives. */
  mixed: number;
  scores: number;
  masses: number;
  codes: number;
  mean: number;
  most: number;
}

/** What is measured of a chunk's last token. */
export interface Measured {
  /** Log codes [layers * kvHeads][resident blocks]. */
  masses: Uint8Array;
  /** undefined: nothing is marked. */
  shadow: MarkedReads | undefined;
}

/** Stores keys and values in the paged cache, attends to it, and notes what is read. */
export class CachedAttention {
  readonly #arena: Arena;
  readonly #kernels: Kernels;
  readonly #layout: CacheLayout;
  readonly #heads: number;
  /** Floats of a token's queries, keys and values. */
  readonly #width: number;
  readonly #maxTokens: number;
  readonly #room: AttentionRoom;
  readonly #statistics: TokenStatistics;
  readonly #merger: BlockMerger;

  constructor(
    { arena, kernels, layout }: { arena: Arena; kernels: Kernels; layout: CacheLayout },
    { heads, maxTokens }: { heads: number; maxTokens: number },
    room: AttentionRoom,
    noted: { statistics: TokenStatistics; merger: BlockMerger },
  ) {
    this.#arena = arena;
    this.#kernels = kernels;
    this.#layout = layout;
    this.#heads = heads;
    this.#width = (heads + 2 * layout.kvHeads) * layout.headDim;
    this.#maxTokens = maxTokens;
    this.#room = room;
    this.#statistics = noted.statistics;
    this.#merger = noted.merger;
  }

  /** What will be measured of a row; undefined: nothing. */
  measured({ chunk: { measure, shadow }, blocks }: Row): Measured | undefined {
    if (!measure) return undefined;
    const groups = this.#layout.layers * this.#layout.kvHeads;
    const marked = shadow?.marksAny
      ? { missed: new Float64Array(groups), regretted: new Uint32Array(groups) }
      : undefined;
    return { masses: new Uint8Array(groups * blocks), shadow: marked };
  }

  /** The attention of all rows in a layer, from `qkv` to `mixed`. `measured` has an entry for each row. */
  run(layer: number, rows: readonly Row[], measured: readonly (Measured | undefined)[]): void {
    for (const row of rows) this.#store(layer, row);
    for (const row of rows) this.#keepQueries(layer, row);
    for (let i = 0; i < rows.length; i++) this.#attend(layer, rows[i]!, measured[i]);
  }

  #store(layer: number, row: Row): void {
    const { kvHeads, headDim, blockSize, keys, values, layerBytes, headBytes } = this.#layout;
    for (let j = 0; j < row.count; j++) {
      const position = row.chunk.position + j;
      const block = row.chunk.blocks[Math.floor(position / blockSize)]!;
      const at = layer * layerBytes + block * kvHeads * headBytes;
      this.#merger.stored(layer, block, position);
      const token = this.#room.qkv + (row.token + j) * this.#width * 4;
      for (let h = 0; h < kvHeads; h++) {
        const key = token + (this.#heads + h) * headDim * 4;
        const value = key + kvHeads * headDim * 4;
        const head = at + h * headBytes;
        this.#kernels.storeKv(keys + head, values + head, key, value, position % blockSize, blockSize, headDim);
      }
    }
  }

  #keepQueries(layer: number, { chunk: { queries, position }, count, token }: Row): void {
    if (queries === undefined) return;
    const { kvHeads, headDim } = this.#layout;
    const width = this.#width;
    const qkv = this.#arena.floats(this.#room.qkv, this.#maxTokens * width);
    for (let j = Math.max(0, queries.start - position); j < count; j++) {
      const at = (token + j) * width;
      const key = at + this.#heads * headDim;
      queries.add(layer, qkv.subarray(at, key), qkv.subarray(key, key + kvHeads * headDim));
    }
  }

  #attend(layer: number, row: Row, wanted: Measured | undefined): void {
    const { kvHeads, headDim, blockSize, keys, values, layerBytes, headBytes } = this.#layout;
    const heads = this.#heads;
    const room = this.#room;
    const stride = this.#width * 4;
    const counts = this.#statistics.active ? row.chunk.counts : undefined;
    for (let j = 0; j < row.count; j++) {
      const measured = wanted !== undefined && j === row.count - 1;
      const marked = measured ? wanted.shadow : undefined;
      const counted = counts !== undefined && row.chunk.position + j >= counts.position;
      this.#kernels.attention(
        room.mixed + (row.token + j) * heads * headDim * 4,
        room.qkv + (row.token + j) * stride,
        row.pointer,
        row.chunk.position + j + 1 - row.skipped,
        keys + layer * layerBytes,
        values + layer * layerBytes,
        kvHeads * headBytes,
        headBytes,
        heads,
        kvHeads,
        headDim,
        blockSize,
        room.scores,
        measured ? room.masses : 0,
        counted || marked !== undefined ? room.mean : 0,
        counted || marked !== undefined ? room.most : 0,
      );
      if (marked !== undefined) this.#noteMarked(layer, row, marked);
      if (counted) this.#count(layer, row, counts.probe, row.chunk.position + j);
    }
    if (wanted === undefined) return;
    const count = kvHeads * row.blocks;
    this.#kernels.logCodes(room.codes, room.masses, count);
    wanted.masses.set(this.#arena.bytes(room.codes, count), layer * count);
  }

  /** After the attention of a row's last token. */
  #noteMarked(layer: number, row: Row, reads: MarkedReads): void {
    const { kvHeads, blockSize } = this.#layout;
    const mean = this.#arena.floats(this.#room.mean, kvHeads * row.blocks * blockSize);
    row.chunk.shadow?.note(layer, this.#arena.ints(row.pointer, row.blocks), mean, reads);
  }

  #count(layer: number, row: Row, probe: boolean, position: number): void {
    const blocks = Math.ceil((position + 1 - row.skipped) / this.#layout.blockSize);
    const { from, to } = row.counted;
    const query = { position, row: row.pointer, from: Math.min(blocks, from), to: Math.min(blocks, to), probe };
    this.#statistics.note(layer, query, this.#room.mean, this.#room.most, blocks);
  }
}
