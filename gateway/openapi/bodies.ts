import { z } from 'zod';
import { type OptionLimits, optionSchema } from '../request/options.ts';

const text = z.string();
const tokens = z.array(z.int().min(0));
const message = z.looseObject({
  role: z.string(),
  content: z.union([z.string(), z.array(z.looseObject({}))]).nullish(),
});
const textOrTexts = z.union([text, z.array(text)]);

/**
 * Request bodies, by path: the fields that a client needs most. A backend knows many more, and all of them pass, so no
 * object here is closed, except `crystal_kv`, which the gateway checks itself.
 */
export function requestBodies(limits: OptionLimits): Readonly<Record<string, z.ZodType>> {
  const common = {
    model: z.string().optional().describe('As GET /v1/models lists it'),
    crystal_kv: optionSchema(limits).nullish().describe('How the KV cache of this request is managed'),
  };
  const generation = {
    ...common,
    stream: z.boolean().nullish(),
    temperature: z.number().min(0).max(2).nullish(),
    vllm_xargs: z
      .record(z.string(), z.union([z.string(), z.number(), z.array(z.union([z.string(), z.number()]))]))
      .nullish()
      .describe('For plug-ins of the backend; keys that begin with crystalkv_ are removed'),
  };
  const pair = { ...common, query: text, documents: z.array(text).min(1) };
  const score = z.looseObject({ ...common, text_1: textOrTexts, text_2: textOrTexts });
  const upload = z.looseObject({ file: z.string().meta({ format: 'binary' }), model: z.string().optional() });
  return {
    '/v1/chat/completions': z.looseObject({
      ...generation,
      messages: z.array(message).min(1),
      max_completion_tokens: z.int().min(1).nullish(),
    }),
    '/v1/completions': z.looseObject({
      ...generation,
      prompt: z.union([text, z.array(text), tokens]),
      max_tokens: z.int().min(1).nullish(),
    }),
    '/v1/responses': z.looseObject({ ...generation, input: z.union([text, z.array(z.looseObject({}))]) }),
    '/v1/messages': z.looseObject({ ...generation, messages: z.array(message).min(1), max_tokens: z.int().min(1) }),
    '/v1/messages/count_tokens': z.looseObject({ ...common, messages: z.array(message).min(1) }),
    '/v1/chat/completions/batch': z.looseObject({ ...generation, messages: z.array(z.array(message).min(1)).min(1) }),
    '/cohere/v2/chat': z.looseObject({ ...generation, messages: z.array(message).min(1) }),
    '/generative_scoring': z.looseObject(common),
    '/v1/decisions': z.looseObject(common),
    '/v1/systemone': z.looseObject(common),
    '/v1/chat/completions/render': z.looseObject({ ...common, messages: z.array(message).min(1) }),
    '/v1/completions/render': z.looseObject({ ...common, prompt: z.union([text, z.array(text), tokens]) }),
    '/v1/responses/render': z.looseObject({ ...common, input: z.union([text, z.array(z.looseObject({}))]) }),
    '/v1/messages/render': z.looseObject({ ...common, messages: z.array(message).min(1) }),
    '/cohere/v2/chat/render': z.looseObject({ ...common, messages: z.array(message).min(1) }),
    '/v1/chat/completions/derender': z.looseObject(common),
    '/v1/completions/derender': z.looseObject(common),
    '/v2/embed': z.looseObject(common),
    '/v1/embeddings': z.looseObject({ ...common, input: z.union([text, z.array(text), tokens]) }),
    '/pooling': z.looseObject({ ...common, input: z.union([text, z.array(text), tokens]) }),
    '/classify': z.looseObject({ ...common, input: textOrTexts }),
    '/score': score,
    '/v1/score': score,
    '/rerank': z.looseObject(pair),
    '/v1/rerank': z.looseObject(pair),
    '/v2/rerank': z.looseObject(pair),
    '/v1/audio/transcriptions': upload,
    '/v1/audio/translations': upload,
    '/tokenize': z.looseObject({ model: z.string().optional(), prompt: text }),
    '/detokenize': z.looseObject({ model: z.string().optional(), tokens }),
  };
}
