import { z } from 'zod';
import { chatMessages } from './chat-messages.ts';
import { ApiError, show } from './errors.ts';
import { flag, maxTokens, samplingFields } from './sampling-fields.ts';

const { n: _n, max_tokens: _limit, stop: _stop, stream_options: _options, ...sampling } = samplingFields;
const ONE_TURN = 'this engine remembers no responses; send the whole conversation as input';
const textFormat = z.looseObject({ format: z.looseObject({ type: z.string() }).nullish() });

/** Body of `POST /v1/responses`; unknown fields are ignored, as vLLM does. */
export const responsesRequest = z.object({
  ...sampling,
  input: z.union([z.string().transform((content) => [{ role: 'user', content }]), chatMessages], {
    error: 'must be a string or a list of messages with role and content',
  }),
  instructions: z.string({ error: 'must be a string' }).nullish(),
  max_output_tokens: maxTokens.nullish(),
  include_reasoning: flag.nullish(),
  metadata: z.record(z.string(), z.string(), { error: 'must be an object of strings' }).nullish(),
  user: z.string({ error: 'must be a string' }).nullish(),
  previous_response_id: z.string({ error: 'must be a string' }).nullish(),
  background: flag.nullish(),
  text: textFormat.nullish(),
  reasoning: z.looseObject({}, { error: 'must be an object' }).nullish(),
});
export type ResponsesRequest = z.output<typeof responsesRequest>;

/** Throws an `invalid` ApiError for what needs a server that stores responses, or another form of text. */
export function checkResponses({ previous_response_id: previous, background, text }: ResponsesRequest): void {
  if (typeof previous === 'string') {
    const field = 'previous_response_id';
    throw new ApiError('invalid', `${field} is ${show(previous)}: ${ONE_TURN}`, field);
  }
  if (background === true) throw new ApiError('invalid', `background is true: ${ONE_TURN}`, 'background');
  const type = text?.format?.type ?? 'text';
  if (type !== 'text') {
    const problem = 'this engine writes plain text only';
    throw new ApiError('invalid', `text.format.type is ${show(type)}: ${problem}`, 'text.format.type');
  }
}
