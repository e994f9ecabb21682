import type { CoreOptions } from '../../engine/core/options.ts';
import type { Chunk, ChunkResult, StepModel } from '../../engine/model/llama.ts';
import type { GenerateRequest, Sampling } from '../../engine/types.ts';

export const EOS = 2;
export const END_OF_THINKING = 3;
const VOCAB = 16;

/** A model whose next token is a function of position alone; it checks that a chunk's blocks cover its tokens. */
export class ScriptedModel implements StepModel {
  readonly config = { layers: 2, kvHeads: 1, eosTokenId: EOS };
  readonly #blockSize: number;
  /** Token at a position. */
  readonly #script: (position: number) => number;

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
      const logits = new Float32Array(VOCAB);
      logits[this.#script(end)] = 1;
      const resident = chunk.blocks.slice(0, covered).filter((block) => block !== 0).length;
      return {
        logits: chunk.logits ? logits : undefined,
        masses: chunk.measure ? new Uint8Array(resident * 2).fill(7) : undefined,
      };
    });
  }
}

export function coreOptions(change: Partial<CoreOptions> = {}): CoreOptions {
  return {
    modelFolder: '',
    blockSize: 8,
    poolBlocks: 64,
    maxSequences: 8,
    maxTokensPerStep: 32,
    maxModelLength: 256,
    protection: { sinkTokens: 4, recentTokens: 8 },
    endOfThinking: [[END_OF_THINKING]],
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
