import type { Request, Response } from 'express';
import { answer } from './answer.ts';
import { parseCacheOptions } from './cache-options.ts';
import { createChatFormat } from './chat-format.ts';
import { templateVariables } from './chat-messages.ts';
import { ApiError, parseBody } from './errors.ts';
import type { SequenceRequest } from './generation.ts';
import { checkModel } from './models.ts';
import { checkPrompt, encodePrompt } from './prompts.ts';
import { adoptRequestId } from './request-id.ts';
import { chatRequest } from './requests.ts';
import { forChoice, resolveSampling } from './sampling.ts';
import { checkStreamOptions } from './sampling-fields.ts';
import { SequenceText } from './sequence-text.ts';
import type { Serving } from './serving.ts';
import { refuseUnsupported } from './unsupported-fields.ts';

/** `POST /v1/chat/completions` */
export function createChatHandler(serving: Serving) {
  const { engine, tokenizer, metrics, lifecycle } = serving;

  return async function chatCompletions(request: Request, response: Response): Promise<void> {
    const fields = parseBody(chatRequest, request.body);
    refuseUnsupported(request.body);
    checkModel(serving, fields.model);
    checkStreamOptions(fields);
    if ((fields.top_logprobs ?? 0) > 0 && fields.logprobs !== true) {
      const problem = 'logprobs must be true with it';
      throw new ApiError('invalid', `top_logprobs is ${fields.top_logprobs}: ${problem}`, 'top_logprobs');
    }
    const cache = parseCacheOptions(fields.vllm_xargs);
    const id = `chatcmpl-${adoptRequestId(request, response, fields.request_id)}`;

    const prompt = encodePrompt('messages', () => tokenizer.encodeChat(fields.messages, templateVariables(fields)));
    checkPrompt('messages', prompt, engine.info);
    const length = { wanted: fields.max_completion_tokens ?? fields.max_tokens ?? undefined, fallback: Infinity };
    const logprobs = fields.logprobs === true ? (fields.top_logprobs ?? 0) : undefined;
    const sampling = resolveSampling(fields, length, prompt.length, logprobs, engine.info, serving.defaults);
    const sequences = Array.from({ length: fields.n ?? 1 }, (_, choice): SequenceRequest => {
      const text = new SequenceText({
        tokenizer,
        thinking: 'apart',
        promptTokenIds: prompt,
        stop: fields.stop ?? [],
        includeStop: fields.include_stop_str_in_output ?? false,
        skipSpecialTokens: fields.skip_special_tokens ?? true,
      });
      return { promptTokenIds: prompt, sampling: forChoice(sampling, choice), text };
    });

    await answer({
      response,
      format: createChatFormat(serving, fields, id),
      start: (onUpdate) => lifecycle.start({ engine, metrics, id, sequences, cache, onUpdate }),
      stream: fields.stream ?? false,
      includeUsage: fields.stream_options?.include_usage ?? false,
      onClientGone: metrics.countClientGone,
      onFinished: (generation) => lifecycle.finish(generation),
    });
  };
}
