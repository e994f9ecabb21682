import { z } from 'zod';
import { ApiError } from './errors.ts';

/** Limit of sequences per request: `n`, and prompts times `n`. */
export const MAX_CHOICES = 128;
const MAX_STOP_STRINGS = 4;
const MAX_LOGPROBS = 20;

/** An integer field, with one message for everything that can be wrong with it. */
export function integer(min: number, max: number, bounds = `from ${min} to ${max}`) {
  const error = `must be an integer ${max === Infinity ? `of at least ${min}` : bounds}`;
  return z.number({ error }).refine((value) => Number.isInteger(value) && value >= min && value <= max, { error });
}

export const flag = z.boolean({ error: 'must be true or false' });
export const topLogprobs = integer(0, MAX_LOGPROBS);
export const maxTokens = integer(1, Infinity);

const share = { error: 'must be a number above 0, at most 1' };
const temperature = { error: 'must be a number of at least 0' };
const stop = { error: `must be a string or up to ${MAX_STOP_STRINGS} strings, each of at least 1 character` };
const stopString = z.string().min(1);

/** The fields that chat and text completions share. Null means absent; unknown fields are ignored. */
export const samplingFields = {
  model: z.string({ error: 'must be a string' }).nullish(),
  n: integer(1, MAX_CHOICES).nullish(),
  max_tokens: maxTokens.nullish(),
  temperature: z.number(temperature).min(0, temperature).nullish(),
  top_p: z.number(share).gt(0, share).lte(1, share).nullish(),
  // vLLM writes "all" as 0 or -1.
  top_k: integer(-1, Infinity).nullish(),
  seed: integer(-(2 ** 63), 2 ** 63, 'of 64 bits, from -2^63 to 2^63 - 1').nullish(),
  stop: z.union([stopString.transform((one) => [one]), z.array(stopString).max(MAX_STOP_STRINGS)], stop).nullish(),
  stop_token_ids: z.array(integer(0, Infinity), { error: 'must be a list of token ids' }).nullish(),
  include_stop_str_in_output: flag.nullish(),
  ignore_eos: flag.nullish(),
  skip_special_tokens: flag.nullish(),
  stream: flag.nullish(),
  stream_options: z
    .object(
      { include_usage: flag.nullish(), continuous_usage_stats: flag.nullish() },
      { error: 'must be an object with include_usage and continuous_usage_stats' },
    )
    .nullish(),
  return_token_ids: flag.nullish(),
  return_tokens_as_token_ids: flag.nullish(),
  request_id: z.string({ error: 'must be a string' }).nullish(),
  vllm_xargs: z.record(z.string(), z.unknown(), { error: 'must be an object' }).nullish(),
};

const shape = z.object(samplingFields);
export type SamplingFields = z.output<typeof shape>;

/** Throws an `invalid` ApiError when there are stream options without a stream. */
export function checkStreamOptions(fields: SamplingFields): void {
  if (fields.stream_options && fields.stream !== true) {
    throw new ApiError('invalid', 'Stream options can only be defined when `stream=True`.', 'stream_options');
  }
}
