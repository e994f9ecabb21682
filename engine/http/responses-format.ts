import type { Sampling } from '../types.ts';
import type { AnswerFormat } from './answer.ts';
import { textOf } from './choice.ts';
import { OutputItems } from './output-items.ts';
import type { ResponsesRequest } from './responses-request.ts';
import type { Serving } from './serving.ts';
import { type Usage, usageOf } from './usage.ts';

/** Responses in vLLM's shape; a stream is made of named events with rising numbers and has no `[DONE]`. */
export function createResponsesFormat(
  serving: Serving,
  fields: ResponsesRequest,
  id: string,
  sampling: Sampling,
): AnswerFormat {
  const created = Math.floor(Date.now() / 1000);
  const hidden = fields.include_reasoning === false;
  const items = new OutputItems(id.slice('resp_'.length));
  let finished: 'stop' | 'length' | undefined;
  let sequence = 0;
  const numbered = (events: readonly object[]) =>
    events.map((event) => {
      sequence += 1;
      return { ...event, sequence_number: sequence - 1 };
    });

  const body = (
    status: 'in_progress' | 'completed' | 'incomplete',
    output: readonly object[],
    usage: Usage | null,
  ) => ({
    id,
    created_at: created,
    incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
    instructions: fields.instructions ?? null,
    metadata: fields.metadata ?? null,
    model: serving.modelName,
    object: 'response',
    output,
    parallel_tool_calls: true,
    temperature: sampling.temperature,
    tool_choice: 'auto',
    tools: [],
    top_p: sampling.topP,
    background: false,
    max_output_tokens: sampling.maxTokens,
    max_tool_calls: null,
    previous_response_id: null,
    prompt: null,
    reasoning: fields.reasoning ?? null,
    service_tier: 'auto',
    status,
    text: fields.text ?? null,
    top_logprobs: null,
    truncation: 'disabled',
    usage: usage === null ? null : usageBody(usage),
    user: fields.user ?? null,
    presence_penalty: 0,
    frequency_penalty: 0,
    kv_transfer_params: null,
    ec_transfer_params: null,
    input_messages: null,
    output_messages: null,
  });
  const endStatus = () => (finished === 'length' ? 'incomplete' : 'completed');

  return {
    named: true,

    opening() {
      const response = body('in_progress', [], null);
      return numbered([
        { type: 'response.created', response },
        { type: 'response.in_progress', response },
      ]);
    },

    chunk(_choice, delta) {
      finished = delta.end?.finishReason ?? finished;
      return numbered([
        ...(hidden ? [] : items.write('reasoning', textOf(delta, 'reasoning'))),
        ...items.write('message', textOf(delta, 'content')),
      ]);
    },

    usageChunk(usage) {
      const last = items.close();
      const response = body(endStatus(), items.done, usage);
      return numbered([...last, { type: 'response.completed', response }]);
    },

    full(_choices, deltas, usage) {
      for (const delta of deltas) {
        finished = delta.end?.finishReason ?? finished;
        if (!hidden) items.write('reasoning', textOf(delta, 'reasoning'));
        items.write('message', textOf(delta, 'content'));
      }
      items.close();
      return body(endStatus(), items.done, usage);
    },

    usage: (choices) => usageOf(choices, 1, { promptTokensDetails: serving.promptTokensDetails, reasoning: true }),

    failure: (error) => numbered([{ type: 'error', code: error.code, message: error.message, param: error.param }]),
  };
}

function usageBody({ prompt_tokens, completion_tokens, total_tokens, ...details }: Usage) {
  return {
    input_tokens: prompt_tokens,
    input_tokens_details: {
      cached_tokens: details.prompt_tokens_details?.cached_tokens ?? 0,
      cache_write_tokens: 0,
      input_tokens_per_turn: [],
      cached_tokens_per_turn: [],
    },
    output_tokens: completion_tokens,
    output_tokens_details: {
      reasoning_tokens: details.completion_tokens_details?.reasoning_tokens ?? 0,
      tool_output_tokens: 0,
      output_tokens_per_turn: [],
      tool_output_tokens_per_turn: [],
    },
    total_tokens,
  };
}
