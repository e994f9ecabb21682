/** Sizes of the vectors of one token in one layer. */
interface Heads {
  heads: number;
  kvHeads: number;
  headDim: number;
}

/** What a probe's tokens have in one layer, in the order of their positions. */
interface LayerQueries {
  /** [heads * headDim] each, rotated to its position. */
  queries: Float32Array[];
  /** [kvHeads * headDim] each, rotated: a query sees those of its own probe up to itself. */
  keys: Float32Array[];
  /** [heads] each: the logarithm of the sum of the exponentials of a query's scores of these keys. */
  own: Float32Array[];
}

/**
 * The queries of an answer probe, which can be asked again: of tokens that were stored later, as if the answer began later.
 * All queries and the probe's own keys turn by the same angle then, so what they score among themselves stays as it is.
 *
 * 4 * heads * headDim bytes for each query and layer, and the keys.
 */
export class AnswerQueries {
  /** Position of the probe's first own token. */
  readonly start: number;
  /** Tokens of the request below this were asked for. */
  askedUpTo: number;
  readonly #size: Heads;
  readonly #layers: LayerQueries[];

  /** `sharedTokens`: those that the probe itself asked. */
  constructor(size: Heads & { layers: number }, start: number, sharedTokens: number) {
    this.start = start;
    this.askedUpTo = sharedTokens;
    this.#size = size;
    this.#layers = Array.from({ length: size.layers }, () => ({ queries: [], keys: [], own: [] }));
  }

  get count(): number {
    return this.#layers.at(-1)!.queries.length;
  }

  /** [heads * headDim] rotated to position `start + index`. */
  query(layer: number, index: number): Float32Array {
    return this.#layers[layer]!.queries[index]!;
  }

  own(layer: number, index: number): Float32Array {
    return this.#layers[layer]!.own[index]!;
  }

  /** The next token of a layer; both are copied. */
  add(layer: number, query: Float32Array, key: Float32Array): void {
    const { queries, keys, own } = this.#layers[layer]!;
    queries.push(query.slice());
    keys.push(key.slice());
    own.push(this.#ownScore(query, keys));
  }

  #ownScore(query: Float32Array, keys: readonly Float32Array[]): Float32Array {
    const { heads, kvHeads, headDim } = this.#size;
    return Float32Array.from({ length: heads }, (_, head) => {
      const at = Math.floor((head * kvHeads) / heads) * headDim;
      const scores = keys.map((key) => {
        let score = 0;
        for (let d = 0; d < headDim; d++) score += query[head * headDim + d]! * key[at + d]!;
        return score / Math.sqrt(headDim);
      });
      const highest = Math.max(...scores);
      return highest + Math.log(scores.reduce((sum, score) => sum + Math.exp(score - highest), 0));
    });
  }
}
