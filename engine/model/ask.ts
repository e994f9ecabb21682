import type { Arena, Kernels } from '../kernels/kernels.ts';
import type { AnswerQueries } from './answer-queries.ts';
import type { CacheLayout } from './cache-layout.ts';
import type { TokenStatistics } from './token-statistics.ts';

/** Byte offsets in the arena, all of which the next forward pass may overwrite. */
export interface AskRoom {
  /** One token's query heads. */
  query: number;
  /** A float for each query head. */
  beside: number;
  /** One position. */
  positions: number;
  /** Block ids of the longest sequence. */
  rows: number;
  scores: number;
  mean: number;
  most: number;
}

/** Asks the queries of probes again. */
export class Asker {
  readonly #arena: Arena;
  readonly #kernels: Kernels;
  readonly #layout: CacheLayout;
  readonly #heads: number;
  readonly #statistics: TokenStatistics;
  readonly #room: AskRoom;

  constructor(
    arena: Arena,
    kernels: Kernels,
    layout: CacheLayout,
    heads: number,
    statistics: TokenStatistics,
    room: AskRoom,
  ) {
    this.#arena = arena;
    this.#kernels = kernels;
    this.#layout = layout;
    this.#heads = heads;
    this.#statistics = statistics;
    this.#room = room;
  }

  /** Counts what they would give, if their answer began after `tokens` tokens, to those in logical blocks from `from` on. */
  ask(queries: AnswerQueries, table: readonly number[], tokens: number, from: number): void {
    const { layers, kvHeads, headDim, blockSize, keys, layerBytes, headBytes, cos, sin } = this.#layout;
    const { query, beside, positions, rows, scores, mean, most } = this.#room;
    const resident = table.slice(0, Math.ceil(tokens / blockSize));
    const row = resident.filter((block) => block !== 0);
    const before = resident.slice(0, from).filter((block) => block !== 0).length;
    const length = tokens - (resident.length - row.length) * blockSize;
    this.#arena.ints(rows, row.length).set(row);
    // a rotated vector is turned further by the rotation of the difference
    this.#arena.ints(positions, 1)[0] = tokens - queries.start;
    const [place, score] = [this.#arena.floats(query, this.#heads * headDim), this.#arena.floats(beside, this.#heads)];
    for (let layer = 0; layer < layers; layer++) {
      for (let index = 0; index < queries.count; index++) {
        place.set(queries.query(layer, index));
        score.set(queries.own(layer, index));
        this.#kernels.rope(query, 1, this.#heads, headDim, this.#heads * headDim * 4, positions, cos, sin);
        this.#kernels.weigh(
          ...([query, beside, rows, length, keys + layer * layerBytes, kvHeads * headBytes, headBytes] as const),
          ...([this.#heads, kvHeads, headDim, blockSize, scores, mean, most] as const),
        );
        this.#statistics.asked(layer, { row: rows, from: before, to: row.length }, most, row.length);
      }
    }
    queries.askedUpTo = tokens;
  }
}
