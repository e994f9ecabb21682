import { createChatFormat } from './chat-format.ts';
import { templateVariables } from './chat-messages.ts';
import { createEndpoint } from './endpoint.ts';
import { ApiError } from './errors.ts';
import { checkPrompt, encodePrompt } from './prompts.ts';
import { chatRequest } from './requests.ts';
import { checkStreamOptions } from './sampling-fields.ts';
import type { Serving } from './serving.ts';

/** `POST /v1/chat/completions` */
export function createChatHandler(serving: Serving) {
  const { engine, tokenizer } = serving;

  return createEndpoint(serving, {
    schema: chatRequest,
    idPrefix: 'chatcmpl-',
    check(fields) {
      checkStreamOptions(fields);
      if ((fields.top_logprobs ?? 0) > 0 && fields.logprobs !== true) {
        const problem = 'logprobs must be true with it';
        throw new ApiError('invalid', `top_logprobs is ${fields.top_logprobs}: ${problem}`, 'top_logprobs');
      }
    },
    read(fields) {
      const promptTokenIds = encodePrompt('messages', () =>
        tokenizer.encodeChat(fields.messages, templateVariables(fields)),
      );
      checkPrompt('messages', promptTokenIds, engine.info);
      const length = { wanted: fields.max_completion_tokens ?? fields.max_tokens ?? undefined, fallback: Infinity };
      const logprobs = fields.logprobs === true ? (fields.top_logprobs ?? 0) : undefined;
      return {
        wanted: [{ promptTokenIds, length, logprobs, thinking: 'apart' }],
        formatOf: (id) => createChatFormat(serving, fields, id),
      };
    },
  });
}
