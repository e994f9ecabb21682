import type { FinishReason } from '../types.ts';
import type { CoreOptions } from './options.ts';
import { type Sampled, Sampler } from './sampler.ts';
import type { Sequence } from './sequence.ts';

/** A token that was appended to a sequence. */
export interface Decoded extends Sampled {
  /** Why the sequence ends with it; undefined: it goes on. */
  end: FinishReason | undefined;
}

/** Chooses the next token of a sequence, and says what ends with it: a segment, the thinking, the sequence. */
export class Decoder {
  readonly #options: CoreOptions;
  readonly #eosTokenId: number;
  readonly #samplers = new WeakMap<Sequence, Sampler>();

  constructor(options: CoreOptions, eosTokenId: number) {
    this.#options = options;
    this.#eosTokenId = eosTokenId;
  }

  /** @param logits [vocab], of the sequence's last token */
  append(sequence: Sequence, logits: Float32Array): Decoded {
    const sampled = this.#samplerOf(sequence).sample(logits);
    sequence.tokenIds.push(sampled.tokenId);
    if (sequence.fork === undefined) this.#notePhase(sequence, sampled.tokenId);
    return { ...sampled, end: this.#endOf(sequence, sampled.tokenId) };
  }

  #samplerOf(sequence: Sequence): Sampler {
    let sampler = this.#samplers.get(sequence);
    if (sampler === undefined) {
      sampler = new Sampler(sequence.request.sampling);
      this.#samplers.set(sequence, sampler);
    }
    return sampler;
  }

  #notePhase(sequence: Sequence, tokenId: number): void {
    const { endOfThinking, segmentMarkers } = this.#options;
    const length = sequence.tokenIds.length;
    if (segmentMarkers.includes(tokenId)) sequence.segmentStarts.push(length);
    const ends = endOfThinking.some((end) => end.every((id, i) => sequence.tokenIds[length - end.length + i] === id));
    if (ends) sequence.hasThought = true;
  }

  #endOf(sequence: Sequence, tokenId: number): FinishReason | undefined {
    const { sampling } = sequence.request;
    if (tokenId === this.#eosTokenId && !sampling.ignoreEos) return 'stop';
    if (sampling.stopTokenIds.includes(tokenId)) return 'stop';
    const full = sequence.tokenIds.length >= this.#options.maxModelLength;
    return full || sequence.generated >= sampling.maxTokens ? 'length' : undefined;
  }
}
