import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

const size = (multiple: number) => z.number().int().min(multiple).multipleOf(multiple);

/** The part of a Hugging Face `LlamaForCausalLM` config.json that the engine reads. */
const HfConfig = z.object({
  model_type: z.literal('llama'),
  hidden_size: size(4),
  intermediate_size: size(4),
  num_hidden_layers: size(1),
  num_attention_heads: size(1),
  num_key_value_heads: size(1),
  head_dim: size(32),
  vocab_size: size(1),
  max_position_embeddings: size(1),
  rms_norm_eps: z.number().positive(),
  hidden_act: z.literal('silu'),
  tie_word_embeddings: z.boolean(),
  attention_bias: z.literal(false).default(false),
  mlp_bias: z.literal(false).default(false),
  eos_token_id: z.number().int(),
  rope_theta: z.number().positive().optional(),
  rope_parameters: z.object({ rope_theta: z.number().positive(), rope_type: z.literal('default') }).optional(),
});

export interface ModelConfig {
  hidden: number;
  intermediate: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  vocab: number;
  maxPositions: number;
  normEps: number;
  tied: boolean;
  eosTokenId: number;
  ropeTheta: number;
}

/** Reads `folder`/config.json. Throws an Error that names file and field when the model is not supported. */
export function readModelConfig(folder: string): ModelConfig {
  const path = join(folder, 'config.json');
  const parsed = HfConfig.safeParse(JSON.parse(readFileSync(path, 'utf8')));
  if (!parsed.success)
    throw new Error(`${path} is not supported by the embedded engine:\n${z.prettifyError(parsed.error)}`);
  const c = parsed.data;
  return {
    hidden: c.hidden_size,
    intermediate: c.intermediate_size,
    layers: c.num_hidden_layers,
    heads: c.num_attention_heads,
    kvHeads: c.num_key_value_heads,
    headDim: c.head_dim,
    vocab: c.vocab_size,
    maxPositions: c.max_position_embeddings,
    normEps: c.rms_norm_eps,
    tied: c.tie_word_embeddings,
    eosTokenId: c.eos_token_id,
    ropeTheta: c.rope_parameters?.rope_theta ?? c.rope_theta ?? 10000,
  };
}
