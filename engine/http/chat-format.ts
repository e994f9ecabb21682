import type { AnswerFormat } from './answer.ts';
import { type Choice, type Delta, textOf } from './choice.ts';
import { chatLogprobs } from './logprobs.ts';
import type { ChatRequest } from './requests.ts';
import type { Serving } from './serving.ts';
import { continuousUsage, runningUsage, usageOf } from './usage.ts';

/** Chat completions in vLLM's shape: chunks have only the fields that are set, complete responses have all fields. */
export function createChatFormat(serving: Serving, fields: ChatRequest, id: string): AnswerFormat {
  const { tokenizer, modelName } = serving;
  const created = Math.floor(Date.now() / 1000);
  const n = fields.n ?? 1;
  const continuous = continuousUsage(fields);
  const hidden = fields.include_reasoning === false;
  // The texts of tokens would reveal reasoning that is to be hidden.
  const withLogprobs = fields.logprobs === true && !hidden;
  const withTokenIds = fields.return_token_ids === true && !hidden;
  const usageOptions = { promptTokensDetails: serving.promptTokensDetails, reasoning: true };
  const tokenText =
    fields.return_tokens_as_token_ids === true ? (token: number) => `token_id:${token}` : tokenizer.tokenText;

  const chunk = (choice: Choice, body: object, extra: object = {}) => ({
    id,
    object: 'chat.completion.chunk',
    created,
    model: modelName,
    choices: [{ index: choice.index, ...body }],
    ...extra,
    ...(continuous ? { usage: runningUsage(choice, usageOptions) } : {}),
  });
  const logprobsOf = (delta: Delta) => (withLogprobs ? chatLogprobs(delta.tokens, tokenText) : null);
  const tokenIdsOf = (delta: Delta) => (withTokenIds ? delta.tokens.map((token) => token.id) : null);
  const reasoningOf = (delta: Delta) => (hidden ? '' : textOf(delta, 'reasoning'));

  return {
    opening(choice) {
      const body = { delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null };
      return chunk(choice, body, { prompt_token_ids: fields.return_token_ids ? choice.promptTokenIds : null });
    },

    chunk(choice, delta) {
      const reasoning = reasoningOf(delta);
      const content = textOf(delta, 'content');
      const silent = reasoning === '' && content === '' && delta.end === undefined;
      if (silent && !withLogprobs && !withTokenIds) return undefined;
      return chunk(choice, {
        delta: { ...(reasoning === '' ? {} : { reasoning }), ...(content === '' ? {} : { content }) },
        logprobs: logprobsOf(delta),
        finish_reason: delta.end?.finishReason ?? null,
        ...(delta.end === undefined ? {} : { stop_reason: delta.end.stopReason }),
        token_ids: tokenIdsOf(delta),
      });
    },

    usageChunk: (usage) => ({ id, object: 'chat.completion.chunk', created, model: modelName, choices: [], usage }),

    full: (choices, deltas, usage) => ({
      id,
      object: 'chat.completion',
      created,
      model: modelName,
      choices: choices.map((choice, i) => {
        const delta = deltas[i]!;
        return {
          index: choice.index,
          message: {
            role: 'assistant',
            content: textOf(delta, 'content') || null,
            refusal: null,
            annotations: null,
            audio: null,
            function_call: null,
            reasoning: reasoningOf(delta) || null,
          },
          logprobs: logprobsOf(delta),
          finish_reason: delta.end?.finishReason ?? null,
          stop_reason: delta.end?.stopReason ?? null,
          token_ids: tokenIdsOf(delta),
        };
      }),
      service_tier: null,
      system_fingerprint: null,
      usage,
      prompt_logprobs: null,
      prompt_token_ids: fields.return_token_ids ? (choices[0]?.promptTokenIds ?? null) : null,
      kv_transfer_params: null,
    }),

    usage: (choices) => usageOf(choices, n, usageOptions),
  };
}
