import type { StreamForm } from '../routes.ts';
import { type EventJson, objectOf } from './deltas.ts';

/** Why a stream is ended; its finish reason, and a metric label. */
export const THINKING_ENDS = ['thinking_limit', 'thinking_loop'] as const;
export type ThinkingEnd = (typeof THINKING_ENDS)[number];

export interface LastEvents {
  form: StreamForm;
  reason: ThinkingEnd;
  /** The event in which it was seen. */
  event: EventJson;
  /** The response that the stream of the responses API began with. */
  response: EventJson;
  /** The choices that have not ended. */
  choices: readonly number[];
  /** The usage to show at the end; undefined: none. */
  usage: EventJson | undefined;
  /** Tokens of output, more or less. */
  tokens: number;
}

/** The events that end a stream as its API does, with a reason that no server gives. */
export function lastEvents({ form, reason, event, response, choices, usage, tokens }: LastEvents): string {
  switch (form) {
    case 'chat': {
      const { usage: _, ...head } = event;
      const ended = choices.map((index) => ({ index, delta: {}, logprobs: null, finish_reason: reason }));
      const events = [{ ...head, choices: ended }, ...(usage === undefined ? [] : [{ ...head, choices: [], usage }])];
      return `${events.map((one) => `data: ${JSON.stringify(one)}\n\n`).join('')}data: [DONE]\n\n`;
    }
    case 'responses': {
      const ended = { ...response, status: 'incomplete', incomplete_details: { reason } };
      const sequence = Number(event['sequence_number'] ?? 0) + 1;
      return named('response.incomplete', { sequence_number: sequence, response: ended });
    }
    case 'messages':
      return (
        named('content_block_stop', { index: event['index'] ?? 0 }) +
        named('message_delta', {
          ...{ delta: { stop_reason: reason, stop_sequence: null }, usage: { output_tokens: tokens } },
        }) +
        named('message_stop', {})
      );
  }
}

/** An event whose name stands in its data too. */
function named(type: string, data: EventJson): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...objectOf(data) })}\n\n`;
}
