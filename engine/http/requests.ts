import { z } from 'zod';
import { templateFields } from './chat-messages.ts';
import { flag, integer, maxTokens, samplingFields, topLogprobs } from './sampling-fields.ts';

/** Body of `POST /v1/chat/completions`; unknown fields are ignored, as vLLM does. */
export const chatRequest = z.object({
  ...samplingFields,
  ...templateFields,
  max_completion_tokens: maxTokens.nullish(),
  logprobs: flag.nullish(),
  top_logprobs: topLogprobs.nullish(),
  include_reasoning: flag.nullish(),
});
export type ChatRequest = z.output<typeof chatRequest>;

const tokenId = integer(0, Infinity);

/** Body of `POST /v1/completions`. */
export const completionRequest = z.object({
  ...samplingFields,
  prompt: z.union([z.string(), z.array(z.string()).min(1), z.array(tokenId).min(1), z.array(z.array(tokenId)).min(1)], {
    error: 'must be a string, a list of strings, a list of token ids, or a list of lists of token ids',
  }),
  echo: flag.nullish(),
  logprobs: topLogprobs.nullish(),
  add_special_tokens: flag.nullish(),
});
export type CompletionRequest = z.output<typeof completionRequest>;
