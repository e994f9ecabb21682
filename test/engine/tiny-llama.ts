import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRandom } from '../../model/random.ts';

/** A Llama of SmolLM2's kind, with sizes that fill no block of 8-bit weights evenly. */
export const TINY = {
  hidden: 72,
  intermediate: 100,
  layers: 2,
  heads: 6,
  kvHeads: 2,
  headDim: 32,
  vocab: 266,
  positions: 256,
  theta: 100_000,
  eps: 1e-5,
} as const;

/** Matrices [rows][cols], by their names in the file, without `.weight`. */
export type TinyWeights = ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>;

/** Weights of random numbers, of the sizes that a trained model has. */
export function randomWeights(seed: number): TinyWeights {
  const random = createRandom(seed);
  const { hidden, intermediate, layers, heads, kvHeads, headDim, vocab } = TINY;
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  const add = (name: string, shape: readonly number[], next: () => number) => {
    const count = shape.reduce((product, size) => product * size, 1);
    weights.set(name, { shape, data: Float32Array.from({ length: count }, next) });
  };
  const matrix = (name: string, rows: number, cols: number) =>
    add(name, [rows, cols], () => (2 * random.fraction() - 1) * Math.sqrt(3 / cols));
  const norm = (name: string) => add(name, [hidden], () => 0.5 + random.fraction());
  matrix('model.embed_tokens', vocab, hidden);
  for (let layer = 0; layer < layers; layer++) {
    const at = `model.layers.${layer}`;
    norm(`${at}.input_layernorm`);
    matrix(`${at}.self_attn.q_proj`, heads * headDim, hidden);
    matrix(`${at}.self_attn.k_proj`, kvHeads * headDim, hidden);
    matrix(`${at}.self_attn.v_proj`, kvHeads * headDim, hidden);
    matrix(`${at}.self_attn.o_proj`, hidden, heads * headDim);
    norm(`${at}.post_attention_layernorm`);
    matrix(`${at}.mlp.gate_proj`, intermediate, hidden);
    matrix(`${at}.mlp.up_proj`, intermediate, hidden);
    matrix(`${at}.mlp.down_proj`, hidden, intermediate);
  }
  norm('model.norm');
  return weights;
}

/** Writes the model as a Hugging Face folder, with a tokenizer for bytes and a few merges. */
export function writeTinyLlama(weights: TinyWeights): { folder: string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'tiny-llama-'));
  const write = (name: string, content: unknown) => writeFileSync(join(folder, name), JSON.stringify(content));
  const { hidden, intermediate, layers, heads, kvHeads, headDim, vocab, positions, theta, eps } = TINY;
  write('config.json', {
    ...{
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      hidden_size: hidden,
      intermediate_size: intermediate,
    },
    ...{ num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim },
    ...{ hidden_act: 'silu', rms_norm_eps: eps, max_position_embeddings: positions, rope_theta: theta },
    ...{ tie_word_embeddings: true, bos_token_id: 1, eos_token_id: 2, vocab_size: vocab },
  });
  writeFileSync(join(folder, 'model.safetensors'), safetensors(weights));
  write('tokenizer.json', TOKENIZER);
  write('tokenizer_config.json', { eos_token: '<|end|>', unk_token: '<|none|>' });
  writeFileSync(
    join(folder, 'chat_template.jinja'),
    "{%- for m in messages -%}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>\n' }}{%- endfor -%}{{ '<|start|><think>\n' }}",
  );
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

export function safetensors(weights: TinyWeights): Buffer {
  const header: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  let at = 0;
  for (const [name, { shape, data }] of weights) {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    header[`${name}.weight`] = { dtype: 'F32', shape, data_offsets: [at, at + bytes.length] };
    parts.push(bytes);
    at += bytes.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...parts]);
}

/** GPT-2's names of the 256 bytes. */
const BYTES: readonly string[] = (() => {
  const shown = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let hidden = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(shown(byte) ? byte : hidden++));
})();
const SPECIAL = ['<|none|>', '<|start|>', '<|end|>'];
const THINK = ['<think>', '</think>'];
const MERGES: readonly (readonly [string, string])[] = [
  ['t', 'h'],
  ['th', 'e'],
  ['Ġ', 'the'],
  ['i', 'n'],
  ['Ġ', 'Ġ'],
];
const WORDS = [...SPECIAL, ...THINK, ...BYTES, ...MERGES.map(([a, b]) => a + b)];

const TOKENIZER = {
  version: '1.0',
  truncation: null,
  padding: null,
  added_tokens: [...SPECIAL, ...THINK].map((content) => ({
    ...{ id: WORDS.indexOf(content), content, special: SPECIAL.includes(content) },
    ...{ single_word: false, lstrip: false, rstrip: false, normalized: false },
  })),
  normalizer: null,
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Digits', individual_digits: true },
      { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    ],
  },
  post_processor: null,
  decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: {
    ...{ type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null },
    ...{ fuse_unk: false, byte_fallback: false, ignore_merges: false },
    vocab: Object.fromEntries(WORDS.map((word, id) => [word, id])),
    merges: MERGES,
  },
};
