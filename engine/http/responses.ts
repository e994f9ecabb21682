import { createEndpoint } from './endpoint.ts';
import { checkPrompt, encodePrompt } from './prompts.ts';
import { createResponsesFormat } from './responses-format.ts';
import { checkResponses, responsesRequest } from './responses-request.ts';
import type { Serving } from './serving.ts';

/** `POST /v1/responses`. Nothing is stored: a response cannot be fetched or continued later. */
export function createResponsesHandler(serving: Serving) {
  const { engine, tokenizer } = serving;

  return createEndpoint(serving, {
    schema: responsesRequest,
    idPrefix: 'resp_',
    check: checkResponses,
    read(fields) {
      const { instructions } = fields;
      const messages = [...(instructions ? [{ role: 'system', content: instructions }] : []), ...fields.input];
      const encode = () => tokenizer.encodeChat(messages, { add_generation_prompt: true });
      const promptTokenIds = encodePrompt('input', encode);
      checkPrompt('input', promptTokenIds, engine.info);
      const length = { wanted: fields.max_output_tokens ?? undefined, fallback: Infinity };
      return {
        wanted: [{ promptTokenIds, length, thinking: 'apart' }],
        formatOf: (id, sampling) => createResponsesFormat(serving, fields, id, sampling),
      };
    },
    alwaysUsage: true,
  });
}
