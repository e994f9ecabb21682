import { type Interval, mean, pairedMean, round } from '../statistics.ts';

/** What the model thought of each generated token. */
export interface Spoken {
  /** Log-probability of the token, in nats. */
  logprobs: readonly number[];
  /** The token that was the most likely one. */
  mostLikely: readonly number[];
}

/** A sequence with the full cache, and with what a candidate left of it. */
export interface Pair {
  promptTokens: number;
  full: Spoken;
  other: Spoken;
}

export interface Fidelity {
  /** Generated tokens that were looked at. */
  tokens: number;
  /** Nats per token that a sequence's tokens were less likely, each with the mean over its own. */
  perSequence: number[];
  extraNats: Interval;
  /** Ratio of perplexities. */
  perplexityRatio: number;
  /** Share of tokens at which the most likely token is the full cache's. */
  sameMostLikely: number;
}

/** The first generated token at which a sequence holds more output than its budget; from there on caches may differ. */
export function firstBeyond(promptTokens: number, budgetBlocks: number, blockSize: number): number {
  return (Math.ceil(promptTokens / blockSize) + budgetBlocks) * blockSize - promptTokens;
}

/** Of the tokens after the budget was exceeded. Throws RangeError when a sequence has none. */
export function fidelity(pairs: readonly Pair[], budgetBlocks: number, blockSize: number): Fidelity {
  const perSequence: number[] = [];
  const same: number[] = [];
  let tokens = 0;
  for (const { promptTokens, full, other } of pairs) {
    const from = firstBeyond(promptTokens, budgetBlocks, blockSize);
    const length = full.logprobs.length;
    if (other.logprobs.length !== length) {
      throw new RangeError(`a sequence has ${length} tokens with the full cache, and ${other.logprobs.length} without`);
    }
    if (from >= length) throw new RangeError(`a sequence of ${length} tokens stays within a budget of ${from}`);
    const differences = full.logprobs.slice(from).map((value, i) => value - other.logprobs[from + i]!);
    perSequence.push(mean(differences));
    same.push(mean(full.mostLikely.slice(from).map((token, i) => Number(token === other.mostLikely[from + i]))));
    tokens += differences.length;
  }
  const extraNats = pairedMean(perSequence);
  return {
    tokens,
    perSequence,
    extraNats,
    perplexityRatio: Math.exp(extraNats.mean),
    sameMostLikely: mean(same),
  };
}

/** `0.123 (0.100 to 0.146)` */
export const describe = ({ mean: middle, low, high }: Interval): string =>
  `${round(middle).toFixed(3)} (${round(low).toFixed(3)} to ${round(high).toFixed(3)})`;
