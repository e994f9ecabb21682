import { ApiError, show } from './errors.ts';

type Neutral = (value: unknown) => boolean;
const never: Neutral = () => false;
const equals =
  (neutral: unknown): Neutral =>
  (value) =>
    value === neutral;
const empty: Neutral = (value) => typeof value === 'object' && value !== null && Object.keys(value).length === 0;

/**
 * Fields of vLLM that this engine does not support, and the values that have no effect. Other values are refused, because
 * ignoring them would give wrong results. Null never has an effect.
 */
const FIELDS: Readonly<Record<string, Neutral>> = Object.freeze({
  frequency_penalty: equals(0),
  presence_penalty: equals(0),
  repetition_penalty: equals(1),
  min_p: equals(0),
  min_tokens: equals(0),
  logit_bias: empty,
  bad_words: empty,
  allowed_token_ids: never,
  use_beam_search: equals(false),
  best_of: equals(1),
  tools: empty,
  functions: empty,
  response_format: (value) => (value as { type?: unknown }).type === 'text',
  structured_outputs: never,
  thinking_token_budget: equals(-1),
  truncate_prompt_tokens: never,
  prompt_logprobs: never,
  logprob_token_ids: never,
  chat_template: never,
  continue_final_message: equals(false),
  documents: empty,
  prompt_embeds: never,
  suffix: equals(''),
});

/** Throws an `invalid` ApiError that names the first field of `body` that this engine does not support. */
export function refuseUnsupported(body: Readonly<Record<string, unknown>>): void {
  for (const [field, neutral] of Object.entries(FIELDS)) {
    const value = body[field];
    if (value === undefined || value === null || neutral(value)) continue;
    throw new ApiError('invalid', `${field} is ${show(value)}: this engine does not support it. Leave it out.`, field);
  }
}
