import type { Choice, TokenCounts } from './choice.ts';
import type { SamplingFields } from './sampling-fields.ts';

/** The `usage` object of vLLM. */
export interface Usage {
  prompt_tokens: number;
  total_tokens: number;
  completion_tokens: number;
  prompt_tokens_details: { cached_tokens: number } | null;
  completion_tokens_details?: { reasoning_tokens: number };
}

export interface UsageOptions {
  /** Whether to report cached prompt tokens (vLLM: `--enable-prompt-tokens-details`). */
  promptTokensDetails: boolean;
  /** Whether to report reasoning tokens: only where reasoning is separated from content. */
  reasoning: boolean;
}

/**
 * Usage of a whole request. Each prompt counts once; its `n` choices follow each other. Only the cached tokens of its
 * first choice count, because the other choices always find the prompt in the cache.
 */
export function usageOf(choices: readonly Choice[], n: number, options: UsageOptions): Usage {
  const counts = choices.map((choice) => choice.counts);
  const prompts = counts.filter((_, index) => index % n === 0);
  const sum = (of: readonly TokenCounts[], key: keyof TokenCounts) => of.reduce((total, one) => total + one[key], 0);
  return toUsage(
    {
      prompt: sum(prompts, 'prompt'),
      cached: sum(prompts, 'cached'),
      completion: sum(counts, 'completion'),
      reasoning: sum(counts, 'reasoning'),
    },
    options,
  );
}

/** Whether every chunk reports the usage so far. As in vLLM, only if usage was requested. */
export function continuousUsage(fields: SamplingFields): boolean {
  const options = fields.stream_options;
  return options?.include_usage === true && options.continuous_usage_stats === true;
}

/** Usage of one choice so far, for `continuous_usage_stats`. */
export function runningUsage(choice: Choice, options: UsageOptions): Usage {
  return toUsage(choice.counts, { ...options, promptTokensDetails: false });
}

function toUsage(counts: TokenCounts, options: UsageOptions): Usage {
  return {
    prompt_tokens: counts.prompt,
    total_tokens: counts.prompt + counts.completion,
    completion_tokens: counts.completion,
    prompt_tokens_details: options.promptTokensDetails ? { cached_tokens: counts.cached } : null,
    ...(options.reasoning ? { completion_tokens_details: { reasoning_tokens: counts.reasoning } } : {}),
  };
}
