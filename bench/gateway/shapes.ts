/** What goes over the wire in the bench: vLLM's shapes, the smallest that every gateway takes. */

export const MODEL = 'bench';

const TEXT =
  'A chat completion of ordinary length, so that neither the head nor the body is all of it: the reasoning model has thought about it and answers in three lines, which is what most answers of assistants look like. ';

/** The events of a stream. */
export interface Pace {
  events: number;
  perSecond: number;
}

/** What every gateway passes on to the scripted server: the pace stands in the text. */
const paceText = ({ perSecond }: Pace) => ` events_per_second=${perSecond}`;
export const perSecondIn = (body: string): number => Number(/ events_per_second=([\d.]+)/.exec(body)?.[1] ?? 50);

/** The body of a request: about 600 bytes. `pace`: streamed. */
export function requestBody(pace?: Pace): string {
  return JSON.stringify({
    model: MODEL,
    messages: [
      { role: 'system', content: 'You are an assistant that answers in one paragraph and does not make things up.' },
      { role: 'user', content: TEXT.repeat(2) + (pace === undefined ? '' : paceText(pace)) },
    ],
    temperature: 0,
    ...(pace === undefined ? { max_tokens: 128 } : { max_tokens: pace.events, stream: true }),
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

/**
 * One event. The time is in the text itself: the only field that every gateway passes on. `soFar`: with the usage so far,
 * which vLLM tells in each event where it was asked for.
 */
export const chunk = (sentAt: number, soFar?: number): string =>
  `data: {"id":"chatcmpl-7c8a5c4e0b9d4c7f","object":"chat.completion.chunk","created":1764000000,"model":"${MODEL}",` +
  `"choices":[{"index":0,"delta":{"content":"@${sentAt}@"},"logprobs":null,"finish_reason":null}]${usageMember(soFar)}}\n\n`;

const usageMember = (soFar: number | undefined): string =>
  soFar === undefined ? '' : `,"usage":{"prompt_tokens":84,"total_tokens":${84 + soFar},"completion_tokens":${soFar}}`;

export const DONE =
  `data: {"id":"chatcmpl-7c8a5c4e0b9d4c7f","object":"chat.completion.chunk","created":1764000000,"model":"${MODEL}",` +
  '"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n';

/** The event that a stream ends with whose usage was asked for. */
export const usageEvent = (usage: object): string =>
  `data: {"id":"chatcmpl-7c8a5c4e0b9d4c7f","object":"chat.completion.chunk","created":1764000000,"model":"${MODEL}",` +
  `"choices":[],"usage":${JSON.stringify(usage)}}\n\n`;
