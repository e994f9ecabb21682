import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';
import type { Sampling, TokenLogprob } from '../types.ts';

export interface Sampled {
  tokenId: number;
  logprob: TokenLogprob | undefined;
}

/** Chooses the next tokens of one sequence. Its random state survives preemptions. */
export class Sampler {
  readonly #sampling: Sampling;
  readonly #random: RandomGenerator;

  constructor(sampling: Sampling) {
    this.#sampling = sampling;
    this.#random = xoroshiro128plus(sampling.seed ?? Math.floor(Math.random() * 2 ** 32));
  }

  /** @param logits [vocab]; neither changed nor kept */
  sample(logits: Float32Array): Sampled {
    const { temperature, logprobs } = this.#sampling;
    const tokenId = temperature === 0 ? argmax(logits) : this.#draw(logits);
    return { tokenId, logprob: logprobs === undefined ? undefined : describe(logits, tokenId, logprobs) };
  }

  /** Temperature, then top-k, then top-p (the smallest set of likeliest tokens that covers p), then a draw. */
  #draw(logits: Float32Array): number {
    const { temperature, topK, topP } = this.#sampling;
    const order = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
    const highest = logits[order[0]!]!;
    const kept = topK === 0 ? order : order.slice(0, topK);
    const weights = kept.map((token) => Math.exp((logits[token]! - highest) / temperature));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    let covered = 0;
    const nucleus = weights.findIndex((weight) => {
      covered += weight;
      return covered >= topP * total;
    });
    const size = nucleus === -1 ? kept.length : nucleus + 1;
    let left = uniformFloat64(this.#random) * weights.slice(0, size).reduce((sum, weight) => sum + weight, 0);
    for (let i = 0; i < size; i++) {
      left -= weights[i]!;
      if (left < 0) return kept[i]!;
    }
    return kept[size - 1]!;
  }
}

function argmax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  return best;
}

function describe(logits: Float32Array, tokenId: number, count: number): TokenLogprob {
  const highest = logits[argmax(logits)]!;
  const norm = highest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - highest), 0));
  const top = Array.from(logits.keys())
    .sort((a, b) => logits[b]! - logits[a]! || a - b)
    .slice(0, count)
    .map((token) => ({ tokenId: token, logprob: logits[token]! - norm }));
  return { tokenId, logprob: logits[tokenId]! - norm, top };
}
