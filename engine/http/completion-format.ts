import type { AnswerFormat } from './answer.ts';
import type { Choice, Delta } from './choice.ts';
import { completionLogprobs } from './logprobs.ts';
import type { Prompt } from './prompts.ts';
import type { CompletionRequest } from './requests.ts';
import type { Serving } from './serving.ts';
import { continuousUsage, runningUsage, usageOf } from './usage.ts';

/** Text completions in vLLM's shape. The choices of prompt p are numbers p * n to p * n + n - 1. */
export function createCompletionFormat(
  serving: Serving,
  fields: CompletionRequest,
  prompts: readonly Prompt[],
  id: string,
): AnswerFormat {
  const { tokenizer, modelName } = serving;
  const created = Math.floor(Date.now() / 1000);
  const n = fields.n ?? 1;
  const continuous = continuousUsage(fields);
  const withLogprobs = typeof fields.logprobs === 'number';
  const withTokenIds = fields.return_token_ids === true;
  const usageOptions = { promptTokensDetails: serving.promptTokensDetails, reasoning: false };
  const tokenText =
    fields.return_tokens_as_token_ids === true ? (token: number) => `token_id:${token}` : tokenizer.tokenText;
  const begun = new Set<Choice>();

  const head = { id, object: 'text_completion', created, model: modelName };
  /** The prompt if it is echoed: it precedes the first text of its choice. */
  const echoOf = (choice: Choice) =>
    fields.echo === true && !begun.has(choice) ? (prompts[Math.floor(choice.index / n)]?.text ?? '') : '';
  const describe = (choice: Choice, delta: Delta) => {
    const first = !begun.has(choice);
    const text = echoOf(choice) + delta.pieces.map((piece) => piece.text).join('');
    begun.add(choice);
    return {
      index: choice.index,
      text,
      logprobs: withLogprobs ? completionLogprobs(delta.tokens, tokenText) : null,
      finish_reason: delta.end?.finishReason ?? null,
      stop_reason: delta.end?.stopReason ?? null,
      prompt_token_ids: withTokenIds && first ? choice.promptTokenIds : null,
      token_ids: withTokenIds ? delta.tokens.map((token) => token.id) : null,
    };
  };

  return {
    opening: () => undefined,

    chunk(choice, delta) {
      const silent = delta.pieces.every((piece) => piece.text === '') && delta.end === undefined;
      if (silent && echoOf(choice) === '' && !withLogprobs && !withTokenIds) return undefined;
      const usage = continuous ? { usage: runningUsage(choice, usageOptions) } : {};
      return { ...head, choices: [describe(choice, delta)], ...usage };
    },

    usageChunk: (usage) => ({ ...head, choices: [], usage }),

    full: (choices, deltas, usage) => ({
      ...head,
      choices: choices.map((choice, i) => ({ ...describe(choice, deltas[i]!), prompt_logprobs: null })),
      service_tier: null,
      system_fingerprint: null,
      usage,
      kv_transfer_params: null,
    }),

    usage: (choices) => usageOf(choices, n, usageOptions),
  };
}
