import type { Request, Response } from 'express';
import { answer } from './answer.ts';
import { parseCacheOptions } from './cache-options.ts';
import { parseBody } from './errors.ts';
import { checkModel } from './models.ts';
import { checkPrompt, encodePrompt } from './prompts.ts';
import { adoptRequestId } from './request-id.ts';
import { createResponsesFormat } from './responses-format.ts';
import { checkResponses, responsesRequest } from './responses-request.ts';
import { forChoice, resolveSampling } from './sampling.ts';
import { SequenceText } from './sequence-text.ts';
import type { Serving } from './serving.ts';
import { refuseUnsupported } from './unsupported-fields.ts';

/** `POST /v1/responses`. Nothing is stored: a response cannot be fetched or continued later. */
export function createResponsesHandler(serving: Serving) {
  const { engine, tokenizer, metrics, lifecycle } = serving;

  return async function responses(request: Request, response: Response): Promise<void> {
    const fields = parseBody(responsesRequest, request.body);
    refuseUnsupported(request.body);
    checkModel(serving, fields.model);
    checkResponses(fields);
    const cache = parseCacheOptions(fields.vllm_xargs);
    const id = `resp_${adoptRequestId(request, response, fields.request_id)}`;

    const { instructions } = fields;
    const messages = [...(instructions ? [{ role: 'system', content: instructions }] : []), ...fields.input];
    const prompt = encodePrompt('input', () => tokenizer.encodeChat(messages, { add_generation_prompt: true }));
    checkPrompt('input', prompt, engine.info);
    const length = { wanted: fields.max_output_tokens ?? undefined, fallback: Infinity };
    const sampling = resolveSampling(fields, length, prompt.length, undefined, engine.info, serving.defaults);
    const text = new SequenceText({
      tokenizer,
      thinking: 'apart',
      promptTokenIds: prompt,
      stop: [],
      includeStop: fields.include_stop_str_in_output ?? false,
      skipSpecialTokens: fields.skip_special_tokens ?? true,
    });
    const sequences = [{ promptTokenIds: prompt, sampling: forChoice(sampling, 0), text }];

    await answer({
      response,
      format: createResponsesFormat(serving, fields, id, sampling),
      start: (onUpdate) => lifecycle.start({ engine, metrics, id, sequences, cache, onUpdate }),
      stream: fields.stream ?? false,
      includeUsage: true,
      onClientGone: metrics.countClientGone,
      onFinished: (generation) => lifecycle.finish(generation),
    });
  };
}
