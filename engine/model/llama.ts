import { type KeepRule, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';
import { Arena, type Kernels, loadKernels } from '../kernels/kernels.ts';
import { AnswerQueries } from './answer-queries.ts';
import { Asker } from './ask.ts';
import { layOutRow, type Row } from './batch-row.ts';
import type { MergeBlocks } from './cache-layout.ts';
import { CachedAttention, type Measured } from './cached-attention.ts';
import type { ModelConfig } from './config.ts';
import { MATRICES, type Matrices, paddedRows, type WeightFormat } from './matrix.ts';
import { availableMemory, checkMemory } from './memory.ts';
import { BlockMerger } from './merge.ts';
import { fillRotations } from './rotations.ts';
import { ShadowCache } from './shadow-cache.ts';
import type { Chunk, ChunkResult, StepModel } from './step-model.ts';
import { type StatisticsOptions, TokenStatistics } from './token-statistics.ts';
import { WeightLoader, type Weights } from './weights.ts';

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
  readonly #attention: CachedAttention;
  readonly #maxTokens: number;
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
    const headBytes = blockSize * headDim * 4;
    const layerBytes = (blocks + 1) * kvHeads * headBytes;
    this.bytesPerBlock = 2 * layers * kvHeads * headBytes;
    const floats = (count: number) => this.#arena.reserve(count * 4);
    const rowLength = Math.ceil(maxPositions / blockSize);
    const keys = floats((layerBytes / 4) * layers);
    const values = floats((layerBytes / 4) * layers);
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
      keys,
      values,
      layerBytes,
      headBytes,
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
    this.#attention = new CachedAttention(
      { arena: this.#arena, kernels: this.#kernels, layout },
      { heads, maxTokens },
      this.#buffer,
      { statistics: this.#statistics, merger: this.#merger },
    );
    fillRotations(this.#arena, config, this.#buffer);
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

  /** One pass over all chunks; their tokens are at most `maxTokens`. Keys and values go to the blocks of each chunk. */
  forward(chunks: readonly Chunk[]): ChunkResult[] {
    const { config } = this;
    const rows = this.#layOut(chunks);
    const total = rows.reduce((sum, row) => sum + row.count, 0);
    const measured = rows.map((row) => this.#attention.measured(row));
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
      const pointer = this.#buffer.rows + i * rowLength * 4;
      const row = layOutRow(chunk, token, pointer, ids.subarray(i * rowLength), this.blockSize);
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
    this.#attention.run(layer, rows, measured);
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
