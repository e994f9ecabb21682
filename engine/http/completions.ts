import type { Request, Response } from 'express';
import { answer } from './answer.ts';
import { parseCacheOptions } from './cache-options.ts';
import { createCompletionFormat } from './completion-format.ts';
import { ApiError, parseBody } from './errors.ts';
import { checkModel } from './models.ts';
import { checkPrompt, encodePrompt, type Prompt } from './prompts.ts';
import { adoptRequestId } from './request-id.ts';
import { type CompletionRequest, completionRequest } from './requests.ts';
import { forChoice, resolveSampling } from './sampling.ts';
import { checkStreamOptions, MAX_CHOICES } from './sampling-fields.ts';
import { SequenceText } from './sequence-text.ts';
import type { Serving } from './serving.ts';
import type { ChatTokenizer } from './tokenizer.ts';
import { refuseUnsupported } from './unsupported-fields.ts';

/** OpenAI's default for text completions. */
const DEFAULT_MAX_TOKENS = 16;

/** `POST /v1/completions` */
export function createCompletionHandler(serving: Serving) {
  const { engine, tokenizer, metrics, lifecycle } = serving;

  return async function completions(request: Request, response: Response): Promise<void> {
    refuseChat(request.body);
    const fields = parseBody(completionRequest, request.body);
    refuseUnsupported(request.body);
    checkModel(serving, fields.model);
    checkStreamOptions(fields);
    if (fields.echo === true && typeof fields.logprobs === 'number') {
      const problem = 'this engine has no log probabilities of prompts; leave out echo or logprobs';
      throw new ApiError('invalid', `echo is true: ${problem}`, 'echo');
    }
    const cache = parseCacheOptions(fields.vllm_xargs);
    const id = `cmpl-${adoptRequestId(request, response, fields.request_id)}`;

    const n = fields.n ?? 1;
    const prompts = readPrompts(tokenizer, fields);
    if (prompts.length * n > MAX_CHOICES) {
      const asked = `${prompts.length} prompts with n ${n}`;
      throw new ApiError('invalid', `${asked} are more than ${MAX_CHOICES} choices in one request`, 'prompt');
    }
    const length = { wanted: fields.max_tokens ?? undefined, fallback: DEFAULT_MAX_TOKENS };
    const sequences = prompts.flatMap(({ ids }) => {
      checkPrompt('prompt', ids, engine.info);
      const logprobs = fields.logprobs ?? undefined;
      const sampling = resolveSampling(fields, length, ids.length, logprobs, engine.info, serving.defaults);
      return Array.from({ length: n }, (_, choice) => {
        const text = new SequenceText({
          tokenizer,
          thinking: 'together',
          promptTokenIds: ids,
          stop: fields.stop ?? [],
          includeStop: fields.include_stop_str_in_output ?? false,
          skipSpecialTokens: fields.skip_special_tokens ?? true,
        });
        return { promptTokenIds: ids, sampling: forChoice(sampling, choice), text };
      });
    });

    await answer({
      response,
      format: createCompletionFormat(serving, fields, prompts, id),
      start: (onUpdate) => lifecycle.start({ engine, metrics, id, sequences, cache, onUpdate }),
      stream: fields.stream ?? false,
      includeUsage: fields.stream_options?.include_usage ?? false,
      onClientGone: metrics.countClientGone,
      onFinished: (generation) => lifecycle.finish(generation),
    });
  };
}

function readPrompts(tokenizer: ChatTokenizer, fields: CompletionRequest): Prompt[] {
  const { prompt } = fields;
  const list = typeof prompt === 'string' ? [prompt] : isTokenIds(prompt) ? [prompt] : prompt;
  return list.map((one) => {
    if (typeof one !== 'string') return { text: tokenizer.decode(one, false), ids: one };
    return { text: one, ids: encodePrompt('prompt', () => tokenizer.encode(one, fields.add_special_tokens ?? true)) };
  });
}

/** A chat that came to the wrong path. Its text would not get the chat template, and the answer would make no sense. */
function refuseChat(body: unknown): void {
  const { messages, prompt } = (body ?? {}) as { messages?: unknown; prompt?: unknown };
  const isChat = Array.isArray(prompt) && typeof prompt[0] === 'object' && !Array.isArray(prompt[0]);
  if (!isChat && (messages === undefined || prompt !== undefined)) return;
  const field = isChat ? 'prompt' : 'messages';
  throw new ApiError('invalid', `${field} is a chat: send messages to /v1/chat/completions instead`, field);
}

function isTokenIds(prompt: readonly unknown[]): prompt is number[] {
  return typeof prompt[0] === 'number';
}
