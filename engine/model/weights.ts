import { join } from 'node:path';
import type { Arena } from '../kernels/kernels.ts';
import type { ModelConfig } from './config.ts';
import { type Matrices, paddedRows } from './matrix.ts';
import { openSafetensors, type Tensor, type TensorFile } from './safetensors.ts';

/** Byte offsets of a layer's weights. Matrices are packed, norms are plain. */
export interface LayerWeights {
  inputNorm: number;
  /** Rows: all query heads, then all key heads, then all value heads. */
  qkv: number;
  o: number;
  postNorm: number;
  /** Rows: gate, then up. */
  gateUp: number;
  down: number;
}

export interface Weights {
  /** [vocab][hidden], plain. */
  embedding: Float32Array;
  layers: LayerWeights[];
  norm: number;
  /** Packed, `logitRows` rows. */
  head: number;
  /** vocab rounded up to whole panels. */
  logitRows: number;
}

/** A model's weights in two steps: the arena must not grow while they are copied, which takes seconds for a large model. */
export class WeightLoader {
  readonly #file: TensorFile;
  readonly #path: string;
  readonly #arena: Arena;
  readonly #matrices: Matrices;
  readonly #embedding: Tensor;
  readonly #copies: (() => void)[] = [];
  readonly #weights: Omit<Weights, 'embedding'>;

  /**
   * Reserves room for `folder`/model.safetensors in the arena. Throws Error that names a missing tensor or a wrong shape.
   */
  constructor(folder: string, config: ModelConfig, arena: Arena, matrices: Matrices) {
    this.#path = join(folder, 'model.safetensors');
    this.#file = openSafetensors(this.#path);
    this.#arena = arena;
    this.#matrices = matrices;
    const { hidden, intermediate, headDim } = config;
    const qRows = config.heads * headDim;
    const kvRows = config.kvHeads * headDim;
    this.#embedding = this.#take('model.embed_tokens', config.vocab, hidden);
    const layers = Array.from({ length: config.layers }, (_, i): LayerWeights => {
      const at = (name: string, ...shape: number[]) => this.#take(`model.layers.${i}.${name}`, ...shape);
      return {
        inputNorm: this.#plain(at('input_layernorm', hidden)),
        qkv: this.#packed(hidden, [
          at('self_attn.q_proj', qRows, hidden),
          at('self_attn.k_proj', kvRows, hidden),
          at('self_attn.v_proj', kvRows, hidden),
        ]),
        o: this.#packed(qRows, [at('self_attn.o_proj', hidden, qRows)]),
        postNorm: this.#plain(at('post_attention_layernorm', hidden)),
        gateUp: this.#packed(hidden, [
          at('mlp.gate_proj', intermediate, hidden),
          at('mlp.up_proj', intermediate, hidden),
        ]),
        down: this.#packed(intermediate, [at('mlp.down_proj', hidden, intermediate)]),
      };
    });
    this.#weights = {
      layers,
      norm: this.#plain(this.#take('model.norm', hidden)),
      head: this.#packed(hidden, [config.tied ? this.#embedding : this.#take('lm_head', config.vocab, hidden)]),
      logitRows: paddedRows(config.vocab),
    };
  }

  /** Bytes outside the arena. */
  get otherBytes(): number {
    return bytesOf(this.#embedding);
  }

  /** Copies the weights. Nothing may be reserved in the arena afterwards. */
  load(): Weights {
    try {
      for (const copy of this.#copies) copy();
      return { embedding: this.#embedding.read(), ...this.#weights };
    } finally {
      this.#file.close();
    }
  }

  #take(name: string, ...shape: number[]): Tensor {
    const tensor = this.#file.tensors.get(`${name}.weight`);
    if (tensor === undefined) throw new Error(`${this.#path} has no tensor ${name}.weight`);
    if (tensor.shape.join() !== shape.join()) {
      throw new Error(
        `${this.#path}: ${name}.weight has the shape [${tensor.shape.join()}], config.json wants [${shape.join()}]`,
      );
    }
    return tensor;
  }

  #plain(tensor: Tensor): number {
    const at = this.#arena.reserve(bytesOf(tensor));
    this.#copies.push(() => this.#arena.floats(at, bytesOf(tensor) / 4).set(tensor.read()));
    return at;
  }

  /** Stacks matrices [rows][cols]. */
  #packed(cols: number, tensors: readonly Tensor[]): number {
    const rows = tensors.reduce((sum, { shape }) => sum + shape[0]!, 0);
    const at = this.#arena.reserve(this.#matrices.bytes(rows, cols));
    let row = 0;
    for (const tensor of tensors) {
      const first = row;
      this.#copies.push(() => this.#matrices.pack(this.#arena, at, first, cols, tensor.read()));
      row += tensor.shape[0]!;
    }
    return at;
  }
}

const bytesOf = ({ shape }: Tensor): number => 4 * shape.reduce((product, size) => product * size, 1);
