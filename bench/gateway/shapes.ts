/** What goes over the wire in the bench: vLLM's shapes, the smallest that every gateway takes. */

export const MODEL = 'bench';

const TEXT =
  'A chat completion of ordinary length, so that neither the head nor the body is all of it: the reasoning model has thought about it and answers in three lines, which is what most answers of assistants look like. ';

/** The body of a request: about 600 bytes. `events`: streamed, and that many. */
export function requestBody(events?: number): string {
  return JSON.stringify({
    model: MODEL,
    messages: [
      { role: 'system', content: 'You are an assistant that answers in one paragraph and does not make things up.' },
      { role: 'user', content: TEXT.repeat(2) },
    ],
    temperature: 0,
    ...(events === undefined ? { max_tokens: 128 } : { max_tokens: events, stream: true }),
  });
}

export const ANSWER = Buffer.from(
  JSON.stringify({
    id: 'chatcmpl-7c8a5c4e0b9d4c7f9a1e2d3c4b5a6978',
    object: 'chat.completion',
    created: 1_764_000_000,
    model: MODEL,
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: TEXT, reasoning: null, tool_calls: [] },
        logprobs: null,
        finish_reason: 'stop',
        stop_reason: null,
      },
    ],
    usage: { prompt_tokens: 84, total_tokens: 212, completion_tokens: 128, prompt_tokens_details: null },
  }),
);

/** Microseconds of the clock that all processes of a machine share (CLOCK_MONOTONIC). */
export const now = (): number => Number(process.hrtime.bigint() / 1000n);

/** One event. The time is in the text itself: the only field that every gateway passes on. */
export const chunk = (sentAt: number): string =>
  `data: {"id":"chatcmpl-7c8a5c4e0b9d4c7f","object":"chat.completion.chunk","created":1764000000,"model":"${MODEL}",` +
  `"choices":[{"index":0,"delta":{"content":"@${sentAt}@"},"logprobs":null,"finish_reason":null}]}\n\n`;

export const DONE =
  `data: {"id":"chatcmpl-7c8a5c4e0b9d4c7f","object":"chat.completion.chunk","created":1764000000,"model":"${MODEL}",` +
  '"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n';

/** The event that a stream ends with whose usage was asked for. */
export const usageEvent = (usage: object): string =>
  `data: {"id":"chatcmpl-7c8a5c4e0b9d4c7f","object":"chat.completion.chunk","created":1764000000,"model":"${MODEL}",` +
  `"choices":[],"usage":${JSON.stringify(usage)}}\n\n`;

/** The time in an event; undefined when it has none. */
export function sentAt(event: string): number | undefined {
  const start = event.indexOf('@');
  const end = start === -1 ? -1 : event.indexOf('@', start + 1);
  return end === -1 ? undefined : Number(event.slice(start + 1, end));
}
