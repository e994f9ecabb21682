import type { CoreOptions } from '../../engine/core/options.ts';
import type { MergeBlocks } from '../../engine/model/cache-layout.ts';
import { ShadowCache } from '../../engine/model/shadow-cache.ts';
import type { Chunk, ChunkResult, StepModel } from '../../engine/model/step-model.ts';
import type { StatisticsOptions } from '../../engine/model/token-statistics.ts';
import type { GenerateRequest, Sampling } from '../../engine/types.ts';
import type { KeepRule } from '../../proto/gen/crystalkv/v1/policy.ts';

export const EOS = 2;
export const END_OF_THINKING = 3;
const VOCAB = 16;

/**
 * A model whose next token is a function of position alone. It checks that a chunk's blocks cover its tokens, that each
 * block that is read holds tokens of its sequence, and that a merge gets full blocks of one sequence; it keeps the newest.
 */
export class ScriptedModel implements StepModel {
  readonly config = { layers: 2, kvHeads: 1, eosTokenId: EOS };
  readonly #blockSize: number;
  /** Token at a position. */
  readonly #script: (position: number) => number;
  /** Positions of the tokens that each block of the pool holds. */
  /** What was asked for last. */
  statistics: StatisticsOptions | undefined;
  readonly #held = new Map<number, number[]>();
  /** The merges that were asked for. */
  readonly merged: MergeBlocks[] = [];

  constructor(blockSize: number, script: (position: number) => number = (position) => 4 + (position % 12)) {
    this.#blockSize = blockSize;
    this.#script = script;
  }

  forward(chunks: readonly Chunk[]): ChunkResult[] {
    return chunks.map((chunk) => {
      const end = chunk.position + chunk.tokenIds.length;
      const covered = Math.ceil(end / this.#blockSize);
      if (chunk.blocks.length < covered) throw new Error(`${chunk.blocks.length} blocks for ${end} tokens`);
      for (let b = Math.floor(chunk.position / this.#blockSize); b < covered; b++) {
        if (chunk.blocks[b] === 0) throw new Error(`a token would be written to a hole at block ${b}`);
      }
      for (let position = chunk.position; position < end; position++) this.#store(chunk, position);
      this.#checkHeld(chunk, end);
      const logits = new Float32Array(VOCAB);
      logits[this.#script(end)] = 1;
      const resident = chunk.blocks.slice(0, covered).filter((block) => block !== 0).length;
      return {
        logits: chunk.logits ? logits : undefined,
        masses: chunk.measure ? new Uint8Array(resident * 2).fill(7) : undefined,
      };
    });
  }

  /** A rule of one stage or more. */
  canFollow({ stages }: KeepRule): boolean {
    return stages.length > 0;
  }

  /** The same for every layer and head. */
  positions(_layer: number, block: number): readonly number[] {
    return this.held(block);
  }

  keepStatistics(options: StatisticsOptions | undefined): void {
    this.statistics = options;
  }

  /** Keeps the last candidates. */
  shadowCache(): ShadowCache {
    return new ShadowCache({ layers: 2, kvHeads: 1, blockSize: this.#blockSize }, (_layer, _head, slots, room) =>
      Uint8Array.from(slots.candidates, (_, i) => Number(i >= slots.candidates.length - room)),
    );
  }

  /** Nobody asks what its answers read. */
  answerQueries(): undefined {}

  ask(): void {
    throw new Error('there are no queries to ask again');
  }

  merge({ into, from, beside }: MergeBlocks): void {
    this.merged.push({ into, from, beside });
    const named = [...into, ...from, ...beside];
    if (new Set(named).size !== named.length || named.includes(0)) throw new Error(`a merge of ${named}`);
    const odd = named.find((block) => this.held(block).length !== this.#blockSize);
    if (odd !== undefined) throw new Error(`block ${odd} of a merge holds ${this.held(odd)}`);
    const newest = [...into, ...from].flatMap((block) => this.held(block)).sort((a, b) => b - a);
    into.forEach((block, i) => {
      this.#held.set(block, newest.slice(i * this.#blockSize, (i + 1) * this.#blockSize));
    });
  }

  /** Positions of the tokens in a block of the pool. */
  held(block: number): readonly number[] {
    return this.#held.get(block) ?? [];
  }

  #store(chunk: Chunk, position: number): void {
    const block = chunk.blocks[Math.floor(position / this.#blockSize)]!;
    this.#held.set(block, [...this.held(block).slice(0, position % this.#blockSize), position]);
  }

  #checkHeld(chunk: Chunk, end: number): void {
    const read = new Set<number>();
    chunk.blocks.slice(0, Math.ceil(end / this.#blockSize)).forEach((block, index) => {
      if (block === 0) return;
      const held = this.held(block).filter((position) => position < end);
      const wanted = Math.min(this.#blockSize, end - index * this.#blockSize);
      if (held.length !== wanted) throw new Error(`block ${index} has ${held.length} tokens, not ${wanted}`);
      for (const position of held) {
        if (read.has(position)) throw new Error(`position ${position} is read twice`);
        read.add(position);
      }
    });
  }
}

export function coreOptions(change: Partial<CoreOptions> = {}): CoreOptions {
  return {
    modelFolder: '',
    weights: 'float32',
    blockSize: 8,
    poolBlocks: 64,
    maxSequences: 8,
    maxTokensPerStep: 32,
    maxModelLength: 256,
    protection: { sinkTokens: 4, recentTokens: 8 },
    endOfThinking: [[END_OF_THINKING]],
    probeSuffix: [END_OF_THINKING],
    segmentMarkers: [],
    enabled: true,
    lockstepTimeoutMs: undefined,
    managed: true,
    ...change,
  };
}

export function request(
  id: string,
  promptTokens: number,
  sampling: Partial<Sampling> = {},
  mode: GenerateRequest['cache']['mode'] = undefined,
): GenerateRequest {
  return {
    id,
    choiceIndex: 0,
    promptTokenIds: Array.from({ length: promptTokens }, (_, i) => 4 + ((i * 7) % 12)),
    sampling: {
      maxTokens: 64,
      temperature: 0,
      topP: 1,
      topK: 0,
      seed: 1,
      ignoreEos: false,
      stopTokenIds: [],
      logprobs: undefined,
      ...sampling,
    },
    cache: { crystalkvId: id, profile: '', budgetTokens: undefined, mode },
  };
}
