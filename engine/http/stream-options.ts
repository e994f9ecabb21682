import { ApiError } from './errors.ts';
import type { SamplingFields } from './sampling-fields.ts';

/** Throws an `invalid` ApiError when there are stream options without a stream. */
export function checkStreamOptions(fields: SamplingFields): void {
  if (fields.stream_options && fields.stream !== true) {
    throw new ApiError('invalid', 'Stream options can only be defined when `stream=True`.', 'stream_options');
  }
}

/** Whether every chunk tells the usage so far. As in vLLM, only where usage was asked for. */
export function continuousUsage(fields: SamplingFields): boolean {
  const options = fields.stream_options;
  return options?.include_usage === true && options.continuous_usage_stats === true;
}
