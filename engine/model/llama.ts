import { type KeepRule, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';
import { Arena, type Kernels, loadKernels } from '../kernels/kernels.ts';
import { AnswerQueries } from './answer-queries.ts';
import { Asker } from './ask.ts';
import type { MergeBlocks } from './cache-layout.ts';
import type { ModelConfig } from './config.ts';
import { MATRICES, type Matrices, paddedRows, type WeightFormat } from './matrix.ts';
import { availableMemory, checkMemory } from './memory.ts';
import { BlockMerger } from './merge.ts';
import { type MarkedReads, ShadowCache } from './shadow-cache.ts';
import { type StatisticsOptions, TokenStatistics } from './token-statistics.ts';
import { WeightLoader, type Weights } from './weights.ts';

/** Consecutive tokens of one sequence that are computed in one step. */
export interface Chunk {
  tokenIds: readonly number[];
  /** Position of the first token. */
  position: number;
  /** Block table, logical order; 0 (the null block) is a hole. It covers the chunk's last position. */
  blocks: readonly number[];
  /** Compute the logits of the last token. */
  logits: boolean;
  /** Measure what the last token attends to. */
  measure: boolean;
  /** Which queries count in the statistics of the tokens that they read; undefined: none. */
  counts?: CountedChunk | undefined;
  /** Takes the queries that count, to ask them again; undefined: nobody will. */
  queries?: AnswerQueries | undefined;
  /** What shadow plans marked: what the measured token gives to it is added up. */
  shadow?: ShadowCache | undefined;
}

/** Blocks are logical ones. */
export interface CountedChunk {
  /** Position of the first query that counts. */
  position: number;
  /** They count for the tokens of these blocks, `to` not included. */
  from: number;
  to: number;
  /** They are those of an answer probe. */
  probe: boolean;
}

export interface ChunkResult {
  /** [vocab] for a chunk that asked for them; a view that the next forward pass overwrites. */
  logits: Float32Array | undefined;
  /** Log codes [layers * kvHeads][resident blocks], for a chunk that asked to be measured. */
  masses: Uint8Array | undefined;
  /** For a chunk that was measured and has marked tokens. */
  shadow?: MarkedReads | undefined;
}

/** The model, as the engine's core uses it. */
export interface StepModel {
  readonly config: Pick<ModelConfig, 'layers' | 'kvHeads' | 'eosTokenId'>;
  /** One pass over all chunks; results in their order. */
  forward(chunks: readonly Chunk[]): ChunkResult[];
  /**
   * Puts the tokens of full blocks into fewer blocks. Each layer and KV head keeps its own choice, by the rule; without
   * one, the tokens that later tokens repeat least.
   */
  merge(blocks: MergeBlocks, rule?: KeepRule): void;
  /** [blockSize] Positions of the tokens that a block of the pool holds for one layer and KV head. */
  positions(layer: number, block: number, head: number): ArrayLike<number>;
  /** Whether `merge` can follow a rule. */
  canFollow(rule: KeepRule): boolean;
  /** The statistics of each token that are kept from now on; undefined: none. */
  keepStatistics(options: StatisticsOptions | undefined): void;
  /** For the queries of a probe, whose first own token is at `start` and which shares so many tokens with its request. undefined: nobody wants to know what answers read. */
  answerQueries(start: number, sharedTokens: number): AnswerQueries | undefined;
  /**
   * Asks the queries of a probe again, as if its answer began after `tokens` tokens: what they would give to the tokens in the
   * logical blocks from `from` on counts as what an answer reads. `blocks` is the request's table.
   */
  ask(queries: AnswerQueries, blocks: readonly number[], tokens: number, from: number): void;
  /** For a sequence of which nothing is marked yet. Merges choose as `merge` does. */
  shadowCache(): ShadowCache;
}

/**
 * LlamaForCausalLM over a paged KV cache, float32 but for the weights, whose format can be chosen. Results do not depend on
 * what else is in the batch.
 * Block 0 is the null block: never read, never written.
 */
export class LlamaModel implements StepModel {
  readonly config: ModelConfig;
  readonly blockSize: number;
  readonly bytesPerBlock: number;
  readonly #arena = new Arena();
  readonly #kernels: Kernels;
  readonly #weights: Weights;
  readonly #matrices: Matrices;
  readonly #merger: BlockMerger;
  readonly #statistics: TokenStatistics;
  readonly #asker: Asker;
  readonly #maxTokens: number;
  /** Byte offsets of keys and values; layer l starts at l * layerBytes, block b at b * headBytes * kvHeads within it. */
  readonly #keys: number;
  readonly #values: number;
  readonly #headBytes: number;
  readonly #layerBytes: number;
  readonly #buffer: Record<
    | 'cos'
    | 'sin'
    | 'hidden'
    | 'normed'
    | 'qkv'
    | 'mixed'
    | 'gateUp'
    | 'wide'
    | 'logits'
    | 'scratch'
    | 'positions'
    | 'rows'
    | 'scores'
    | 'masses'
    | 'codes'
    | 'mean'
    | 'most',
    number
  >;

  /**
   * @param blocks blocks in the pool, the null block not counted
   * @param maxTokens most tokens of one forward pass
   * @param maxLogits most chunks of one forward pass that ask for logits
   */
  constructor(
    folder: string,
    config: ModelConfig,
    blockSize: number,
    blocks: number,
    maxTokens: number,
    { weights = 'float32', maxLogits = maxTokens }: { weights?: WeightFormat; maxLogits?: number } = {},
  ) {
    this.config = config;
    this.blockSize = blockSize;
    this.#maxTokens = maxTokens;
    const { hidden, intermediate, heads, kvHeads, headDim, layers, maxPositions } = config;
    this.#matrices = MATRICES[weights];
    const loader = new WeightLoader(folder, config, this.#arena, this.#matrices);
    const weightBytes = this.#arena.size + loader.otherBytes;
    this.#headBytes = blockSize * headDim * 4;
    this.#layerBytes = (blocks + 1) * kvHeads * this.#headBytes;
    this.bytesPerBlock = 2 * layers * kvHeads * this.#headBytes;
    const floats = (count: number) => this.#arena.reserve(count * 4);
    const rowLength = Math.ceil(maxPositions / blockSize);
    this.#keys = floats((this.#layerBytes / 4) * layers);
    this.#values = floats((this.#layerBytes / 4) * layers);
    const widest = Math.max(hidden, intermediate, heads * headDim);
    this.#buffer = {
      cos: floats((maxPositions * headDim) / 2),
      sin: floats((maxPositions * headDim) / 2),
      hidden: floats(maxTokens * hidden),
      normed: floats(maxTokens * hidden),
      qkv: floats(maxTokens * (heads + 2 * kvHeads) * headDim),
      mixed: floats(maxTokens * heads * headDim),
      gateUp: floats(maxTokens * 2 * intermediate),
      wide: floats(maxTokens * Math.max(intermediate, hidden)),
      logits: floats(maxLogits * paddedRows(config.vocab)),
      scratch: this.#arena.reserve(this.#matrices.scratchBytes(maxTokens, widest)),
      positions: floats(maxTokens),
      rows: floats(maxTokens * rowLength),
      scores: floats(rowLength * blockSize),
      masses: floats(kvHeads * rowLength),
      codes: floats(kvHeads * rowLength),
      mean: floats(kvHeads * rowLength * blockSize),
      most: floats(kvHeads * rowLength * blockSize),
    };
    const layout = {
      layers,
      kvHeads,
      headDim,
      blockSize,
      blocks: blocks + 1,
      maxPositions,
      keys: this.#keys,
      values: this.#values,
      layerBytes: this.#layerBytes,
      headBytes: this.#headBytes,
      cos: this.#buffer.cos,
      sin: this.#buffer.sin,
    };
    const addresses = TokenStatistics.reserve(this.#arena, layout);
    const room = BlockMerger.reserve(this.#arena, layout);
    const cache = this.bytesPerBlock * (blocks + 1);
    const rest = this.#arena.size + loader.otherBytes - weightBytes - cache;
    checkMemory({ weights: weightBytes, cache, rest }, availableMemory());
    this.#weights = loader.load();
    this.#kernels = loadKernels(this.#arena);
    this.#statistics = new TokenStatistics(this.#arena, this.#kernels, layout, addresses);
    this.#merger = new BlockMerger(this.#arena, this.#kernels, layout, this.#statistics, room);
    const { qkv: query, normed: beside, positions, rows, scores, mean, most } = this.#buffer;
    const askRoom = { query, beside, positions, rows, scores, mean, most };
    this.#asker = new Asker(this.#arena, this.#kernels, layout, heads, this.#statistics, askRoom);
    this.#fillRotations();
  }

  merge(blocks: MergeBlocks, rule?: KeepRule): void {
    this.#merger.merge(blocks, rule);
  }

  canFollow(rule: KeepRule): boolean {
    return this.#merger.canFollow(rule);
  }

  keepStatistics(options: StatisticsOptions | undefined): void {
    this.#statistics.keep(options);
  }

  answerQueries(start: number, sharedTokens: number): AnswerQueries | undefined {
    if (!this.#statistics.keeps(Statistic.STATISTIC_ANSWER)) return undefined;
    return new AnswerQueries(this.config, start, sharedTokens);
  }

  ask(queries: AnswerQueries, blocks: readonly number[], tokens: number, from: number): void {
    this.#asker.ask(queries, blocks, tokens, from);
  }

  shadowCache(): ShadowCache {
    const { layers, kvHeads } = this.config;
    return new ShadowCache({ layers, kvHeads, blockSize: this.blockSize }, (...asked) => this.#merger.select(...asked));
  }

  /** [blockSize] A statistic of the tokens in a block of the pool for one layer and KV head. */
  statistic(statistic: Statistic, layer: number, block: number, head: number): Float32Array {
    return this.#statistics.read(statistic, layer, block, head);
  }

  /** [blockSize] Positions of the tokens that a block of the pool holds for one layer and KV head. */
  positions(layer: number, block: number, head: number): Int32Array {
    return this.#merger.positions(layer, block, head);
  }

  #fillRotations(): void {
    const { headDim, maxPositions, ropeTheta } = this.config;
    const half = headDim / 2;
    const cos = this.#arena.floats(this.#buffer.cos, maxPositions * half);
    const sin = this.#arena.floats(this.#buffer.sin, maxPositions * half);
    for (let p = 0; p < maxPositions; p++) {
      for (let d = 0; d < half; d++) {
        const angle = p * ropeTheta ** (-d / half);
        cos[p * half + d] = Math.cos(angle);
        sin[p * half + d] = Math.sin(angle);
      }
    }
  }

  /** One pass over all chunks; their tokens are at most `maxTokens`. Keys and values go to the blocks of each chunk. */
  forward(chunks: readonly Chunk[]): ChunkResult[] {
    const { config } = this;
    const rows = this.#layOut(chunks);
    const total = rows.reduce((sum, row) => sum + row.count, 0);
    const groups = config.layers * config.kvHeads;
    const measured = chunks.map(({ measure, shadow }, i): Measured | undefined => {
      if (!measure) return undefined;
      const marked = shadow?.marksAny
        ? { missed: new Float64Array(groups), regretted: new Uint32Array(groups) }
        : undefined;
      return { masses: new Uint8Array(groups * rows[i]!.blocks), shadow: marked };
    });
    for (let layer = 0; layer < config.layers; layer++) this.#layer(layer, total, rows, measured);
    const logits = this.#logits(rows, chunks);
    return chunks.map((_, i) => ({
      logits: logits[i],
      masses: measured[i]?.masses,
      shadow: measured[i]?.shadow,
    }));
  }

  /** Embeds the tokens, writes positions and compacted rows. */
  #layOut(chunks: readonly Chunk[]): Row[] {
    const { hidden } = this.config;
    const { embedding } = this.#weights;
    const rowLength = Math.ceil(this.config.maxPositions / this.blockSize);
    const x = this.#arena.floats(this.#buffer.hidden, this.#maxTokens * hidden);
    const positions = this.#arena.ints(this.#buffer.positions, this.#maxTokens);
    const ids = this.#arena.ints(this.#buffer.rows, chunks.length * rowLength);
    let token = 0;
    return chunks.map((chunk, i) => {
      const count = chunk.tokenIds.length;
      for (let j = 0; j < count; j++) {
        const id = chunk.tokenIds[j]!;
        x.set(embedding.subarray(id * hidden, (id + 1) * hidden), (token + j) * hidden);
        positions[token + j] = chunk.position + j;
      }
      const last = Math.floor((chunk.position + count - 1) / this.blockSize);
      let blocks = 0;
      for (let b = 0; b <= last; b++) {
        const id = chunk.blocks[b]!;
        if (id !== 0) ids[i * rowLength + blocks++] = id;
      }
      const holes = last + 1 - blocks;
      const row: Row = {
        token,
        count,
        pointer: this.#buffer.rows + i * rowLength * 4,
        blocks,
        skipped: holes * this.blockSize,
        counted: {
          from: countResident(chunk.blocks, chunk.counts?.from ?? 0),
          to: countResident(chunk.blocks, chunk.counts?.to ?? 0),
        },
        chunk,
      };
      token += count;
      return row;
    });
  }

  #layer(layer: number, n: number, rows: readonly Row[], measured: readonly (Measured | undefined)[]): void {
    const k = this.#kernels;
    const b = this.#buffer;
    const w = this.#weights.layers[layer]!;
    const { hidden, intermediate, heads, kvHeads, headDim, normEps } = this.config;
    const qkvRows = (heads + 2 * kvHeads) * headDim;
    k.rmsNorm(b.normed, b.hidden, w.inputNorm, n, hidden, normEps);
    this.#multiply(b.qkv, b.normed, w.qkv, n, qkvRows, hidden);
    k.rope(b.qkv, n, heads + kvHeads, headDim, qkvRows * 4, b.positions, b.cos, b.sin);
    for (const row of rows) this.#store(layer, row, qkvRows * 4);
    for (const row of rows) this.#keepQueries(layer, row, qkvRows);
    for (let i = 0; i < rows.length; i++) this.#attend(layer, rows[i]!, qkvRows * 4, measured[i]);
    this.#multiply(b.normed, b.mixed, w.o, n, hidden, heads * headDim);
    k.add(b.hidden, b.normed, n * hidden);
    k.rmsNorm(b.normed, b.hidden, w.postNorm, n, hidden, normEps);
    this.#multiply(b.gateUp, b.normed, w.gateUp, n, 2 * intermediate, hidden);
    k.swiglu(b.wide, b.gateUp, n, intermediate);
    this.#multiply(b.normed, b.wide, w.down, n, hidden, intermediate);
    k.add(b.hidden, b.normed, n * hidden);
  }

  #multiply(out: number, x: number, w: number, n: number, rows: number, cols: number): void {
    this.#matrices.multiply(this.#kernels, { out, x, w, n, rows, cols, scratch: this.#buffer.scratch });
  }

  #store(layer: number, row: Row, stride: number): void {
    const { heads, kvHeads, headDim } = this.config;
    for (let j = 0; j < row.count; j++) {
      const position = row.chunk.position + j;
      const block = row.chunk.blocks[Math.floor(position / this.blockSize)]!;
      const at = layer * this.#layerBytes + block * kvHeads * this.#headBytes;
      this.#merger.stored(layer, block, position);
      const token = this.#buffer.qkv + (row.token + j) * stride;
      for (let h = 0; h < kvHeads; h++) {
        const key = token + (heads + h) * headDim * 4;
        const value = key + kvHeads * headDim * 4;
        const offset = position % this.blockSize;
        const head = at + h * this.#headBytes;
        this.#kernels.storeKv(this.#keys + head, this.#values + head, key, value, offset, this.blockSize, headDim);
      }
    }
  }

  #keepQueries(layer: number, { chunk: { queries, position }, count, token }: Row, qkvRows: number): void {
    if (queries === undefined) return;
    const { heads, kvHeads, headDim } = this.config;
    const qkv = this.#arena.floats(this.#buffer.qkv, this.#maxTokens * qkvRows);
    for (let j = Math.max(0, queries.start - position); j < count; j++) {
      const at = (token + j) * qkvRows;
      const key = at + heads * headDim;
      queries.add(layer, qkv.subarray(at, key), qkv.subarray(key, key + kvHeads * headDim));
    }
  }

  #attend(layer: number, row: Row, stride: number, wanted: Measured | undefined): void {
    const { heads, kvHeads, headDim } = this.config;
    const b = this.#buffer;
    const layerAt = layer * this.#layerBytes;
    const counts = this.#statistics.active ? row.chunk.counts : undefined;
    for (let j = 0; j < row.count; j++) {
      const measured = wanted !== undefined && j === row.count - 1;
      const marked = measured ? wanted.shadow : undefined;
      const counted = counts !== undefined && row.chunk.position + j >= counts.position;
      this.#kernels.attention(
        b.mixed + (row.token + j) * heads * headDim * 4,
        b.qkv + (row.token + j) * stride,
        row.pointer,
        row.chunk.position + j + 1 - row.skipped,
        this.#keys + layerAt,
        this.#values + layerAt,
        kvHeads * this.#headBytes,
        this.#headBytes,
        heads,
        kvHeads,
        headDim,
        this.blockSize,
        b.scores,
        measured ? b.masses : 0,
        counted || marked !== undefined ? b.mean : 0,
        counted || marked !== undefined ? b.most : 0,
      );
      if (marked !== undefined) this.#noteMarked(layer, row, marked);
      if (counted) this.#count(layer, row, counts.probe, row.chunk.position + j);
    }
    if (wanted === undefined) return;
    const count = kvHeads * row.blocks;
    this.#kernels.logCodes(b.codes, b.masses, count);
    wanted.masses.set(this.#arena.bytes(b.codes, count), layer * count);
  }

  /** After the attention of a row's last token. */
  #noteMarked(layer: number, row: Row, reads: MarkedReads): void {
    const mean = this.#arena.floats(this.#buffer.mean, this.config.kvHeads * row.blocks * this.blockSize);
    row.chunk.shadow?.note(layer, this.#arena.ints(row.pointer, row.blocks), mean, reads);
  }

  #count(layer: number, row: Row, probe: boolean, position: number): void {
    const blocks = Math.ceil((position + 1 - row.skipped) / this.blockSize);
    const { from, to } = row.counted;
    const query = { position, row: row.pointer, from: Math.min(blocks, from), to: Math.min(blocks, to), probe };
    this.#statistics.note(layer, query, this.#buffer.mean, this.#buffer.most, blocks);
  }

  #logits(rows: readonly Row[], chunks: readonly Chunk[]): (Float32Array | undefined)[] {
    const { hidden, vocab, normEps } = this.config;
    const b = this.#buffer;
    const { logitRows } = this.#weights;
    const x = this.#arena.floats(b.hidden, this.#maxTokens * hidden);
    let n = 0;
    const slots = rows.map((row, i) => {
      if (!chunks[i]!.logits) return undefined;
      const last = row.token + row.count - 1;
      x.copyWithin(n * hidden, last * hidden, (last + 1) * hidden);
      return n++;
    });
    this.#kernels.rmsNorm(b.normed, b.hidden, this.#weights.norm, n, hidden, normEps);
    this.#multiply(b.logits, b.normed, this.#weights.head, n, logitRows, hidden);
    return slots.map((slot) =>
      slot === undefined ? undefined : this.#arena.floats(b.logits + slot * logitRows * 4, vocab),
    );
  }
}

/** The number of resident blocks below a logical index. */
function countResident(blocks: readonly number[], end: number): number {
  let count = 0;
  for (let i = 0; i < Math.min(end, blocks.length); i++) if (blocks[i] !== 0) count++;
  return count;
}

/** What is measured of a chunk's last token. */
interface Measured {
  /** Log codes [layers * kvHeads][resident blocks]. */
  masses: Uint8Array;
  /** undefined: nothing is marked. */
  shadow: MarkedReads | undefined;
}

/** Where a chunk's tokens are in the step's buffers. */
interface Row {
  token: number;
  count: number;
  /** Compacted block ids. */
  pointer: number;
  /** How many of them: the resident blocks. */
  blocks: number;
  /** Tokens in the holes. */
  skipped: number;
  /** The compacted blocks for whose tokens queries count, `to` not included. */
  counted: { from: number; to: number };
  chunk: Chunk;
}
