import { createCompletionFormat } from './completion-format.ts';
import { createEndpoint } from './endpoint.ts';
import { ApiError } from './errors.ts';
import { checkPrompt, encodePrompt, type Prompt } from './prompts.ts';
import { type CompletionRequest, completionRequest } from './requests.ts';
import { checkStreamOptions, MAX_CHOICES } from './sampling-fields.ts';
import type { Serving } from './serving.ts';
import type { ChatTokenizer } from './tokenizer.ts';

/** OpenAI's default for text completions. */
const DEFAULT_MAX_TOKENS = 16;

/** `POST /v1/completions` */
export function createCompletionHandler(serving: Serving) {
  const { engine, tokenizer } = serving;

  return createEndpoint(serving, {
    schema: completionRequest,
    idPrefix: 'cmpl-',
    refuse: refuseChat,
    check(fields) {
      checkStreamOptions(fields);
      if (fields.echo === true && typeof fields.logprobs === 'number') {
        const problem = 'this engine has no log probabilities of prompts; leave out echo or logprobs';
        throw new ApiError('invalid', `echo is true: ${problem}`, 'echo');
      }
    },
    read(fields) {
      const prompts = readPrompts(tokenizer, fields);
      const n = fields.n ?? 1;
      if (prompts.length * n > MAX_CHOICES) {
        const asked = `${prompts.length} prompts with n ${n}`;
        throw new ApiError('invalid', `${asked} are more than ${MAX_CHOICES} choices in one request`, 'prompt');
      }
      const length = { wanted: fields.max_tokens ?? undefined, fallback: DEFAULT_MAX_TOKENS };
      const wanted = prompts.map(({ ids }) => {
        checkPrompt('prompt', ids, engine.info);
        return { promptTokenIds: ids, length, logprobs: fields.logprobs ?? undefined, thinking: 'together' as const };
      });
      return { wanted, formatOf: (id) => createCompletionFormat(serving, fields, prompts, id) };
    },
  });
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
