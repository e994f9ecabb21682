import { z } from 'zod';
import { LOG_LEVELS } from '../common/logger.ts';
import { WEIGHT_FORMATS } from './model/matrix.ts';

const integer = (min: number, max: number) => z.number().int().min(min).max(max);

/** Section `engine` of the configuration. */
export const EngineConfig = z.strictObject({
  host: z.string().min(1).default('127.0.0.1').describe('address to listen on'),
  port: integer(0, 65535).default(8000).describe('port of the OpenAI API; 0 takes a free one'),
  model: z.string().min(1).default('model/crystal-mini').describe('folder with a Hugging Face LlamaForCausalLM model'),
  weights: z
    .enum(WEIGHT_FORMATS)
    .default('float32')
    .describe('how to keep the weights: exactly, or rounded to 8 bits, which needs a quarter of the memory'),
  served_model_name: z.string().min(1).default('crystal-mini').describe('name of the model in the API'),
  block_size: integer(8, 128).multipleOf(8).default(16).describe('tokens per KV block: a multiple of 8, from 8 to 128'),
  pool_blocks: integer(8, 1_000_000).default(1024).describe('KV blocks in the pool'),
  max_model_length: integer(1, 1_000_000)
    .optional()
    .describe('longest sequence, in tokens; default: what model and pool allow'),
  max_num_seqs: integer(1, 1024).default(64).describe('most concurrent sequences'),
  max_num_batched_tokens: integer(8, 8192)
    .default(512)
    .describe('tokens per step; longer prompts are split into chunks'),
  sink_tokens: integer(0, 4096).default(4).describe('first tokens of a sequence, never evicted'),
  recent_tokens: integer(0, 4096).default(64).describe('newest tokens of a sequence, never evicted'),
  end_of_thinking: z.array(z.string().min(1)).default(['</think>']).describe('texts that end the thinking phase'),
  probe_suffix: z
    .string()
    .min(1)
    .optional()
    .describe(
      'text with which a probe ends the thinking, such as the sentence and line ends after which the model answers; default: the first of end_of_thinking',
    ),
  segment_markers: z.array(z.string().min(1)).default([';']).describe('tokens after which a reasoning step begins'),
  engine_id: z.string().min(1).max(128).default('embedded').describe('name of this engine at the policy service'),
  policy_address: z
    .string()
    .default('127.0.0.1:50051')
    .describe('host:port of the policy service; empty: none, nothing is evicted')
    .meta({ env: 'CRYSTALKV_POLICY_ADDRESS' }),
  policy_token: z.string().min(1).optional().describe('shared token of the policy service').meta({ secret: true }),
  policy_ca: z
    .string()
    .min(1)
    .optional()
    .describe('PEM file of the authority that signed its certificate; turns TLS on'),
  enabled: z
    .union([z.boolean(), z.literal(0), z.literal(1)])
    .transform(Boolean)
    .default(true)
    .describe('false or 0: nothing is evicted')
    .meta({ env: 'CRYSTALKV_ENABLED' }),
  lockstep: z.boolean().default(false).describe('wait for the plan of a step before the next: exact, but slow'),
  lockstep_timeout_ms: integer(1, 60_000).default(1000).describe('longest such wait'),
  log_level: z.enum(LOG_LEVELS).default('info').describe('lowest level that is logged'),
});

export type EngineConfig = z.output<typeof EngineConfig>;
