import { join } from 'node:path';
import type { Arena } from '../kernels/kernels.ts';
import type { ModelConfig } from './config.ts';
import { readSafetensors, type Tensor } from './safetensors.ts';

/** Byte offsets of a layer's weights. Matrices are packed for `matmul`, norms are plain. */
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
  /** vocab rounded up to 8. */
  logitRows: number;
}

const PANEL = 8;

/** Rows of a matrix as `matmul` wants them. */
export const paddedRows = (rows: number): number => Math.ceil(rows / PANEL) * PANEL;

/** Loads `folder`/model.safetensors into the arena. Throws Error that names a missing tensor or a wrong shape. */
export function loadWeights(folder: string, config: ModelConfig, arena: Arena): Weights {
  const path = join(folder, 'model.safetensors');
  const tensors = readSafetensors(path);
  const take = (name: string, ...shape: number[]): Tensor => {
    const tensor = tensors.get(name);
    if (tensor === undefined) throw new Error(`${path} has no tensor ${name}`);
    if (tensor.shape.join() !== shape.join()) {
      throw new Error(`${path}: ${name} has the shape [${tensor.shape.join()}], config.json wants [${shape.join()}]`);
    }
    return tensor;
  };
  const plain = (tensor: Tensor): number => {
    const at = arena.reserve(tensor.data.byteLength);
    arena.floats(at, tensor.data.length).set(tensor.data);
    return at;
  };
  const { hidden, intermediate, headDim } = config;
  const qRows = config.heads * headDim;
  const kvRows = config.kvHeads * headDim;
  const embedding = take('model.embed_tokens.weight', config.vocab, hidden);
  const layers = Array.from({ length: config.layers }, (_, i): LayerWeights => {
    const at = (name: string, ...shape: number[]) => take(`model.layers.${i}.${name}.weight`, ...shape);
    return {
      inputNorm: plain(at('input_layernorm', hidden)),
      qkv: pack(arena, hidden, [
        at('self_attn.q_proj', qRows, hidden),
        at('self_attn.k_proj', kvRows, hidden),
        at('self_attn.v_proj', kvRows, hidden),
      ]),
      o: pack(arena, qRows, [at('self_attn.o_proj', hidden, qRows)]),
      postNorm: plain(at('post_attention_layernorm', hidden)),
      gateUp: pack(arena, hidden, [at('mlp.gate_proj', intermediate, hidden), at('mlp.up_proj', intermediate, hidden)]),
      down: pack(arena, intermediate, [at('mlp.down_proj', hidden, intermediate)]),
    };
  });
  return {
    embedding: embedding.data,
    layers,
    norm: plain(take('model.norm.weight', hidden)),
    head: pack(arena, hidden, [config.tied ? embedding : take('lm_head.weight', config.vocab, hidden)]),
    logitRows: paddedRows(config.vocab),
  };
}

/** Stacks matrices [rows][cols] and packs them as [rows / 8][cols][8]; missing rows are zero. */
function pack(arena: Arena, cols: number, tensors: Tensor[]): number {
  const rows = tensors.reduce((sum, tensor) => sum + tensor.data.length / cols, 0);
  const at = arena.reserve(paddedRows(rows) * cols * 4);
  const out = arena.floats(at, paddedRows(rows) * cols);
  let row = 0;
  for (const { data } of tensors) {
    for (let r = 0; r < data.length / cols; r++, row++) {
      const panel = Math.floor(row / PANEL) * PANEL * cols + (row % PANEL);
      for (let c = 0; c < cols; c++) out[panel + c * PANEL] = data[r * cols + c]!;
    }
  }
  return at;
}
