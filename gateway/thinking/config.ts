import { z } from 'zod';
import { whole } from '../../common/bounds.ts';
import { PROFILE_NAME, PROFILE_NAME_RULE } from '../../common/profile-name.ts';

/** The bounds of `max_thinking_tokens`, of keys too. */
export const MAX_THINKING = whole(1, 10_000_000);

/** The part `gateway.thinking` of the configuration: when a stream is ended because of how it thinks. */
export const thinkingSchema = z
  .strictObject({
    stop_repeating: z
      .boolean('must be true or false')
      .default(false)
      .describe(
        'End a stream whose thinking has had the same 64 words and signs in a row three times (default: false)',
      ),
    max_thinking_tokens: z
      .record(z.string().regex(PROFILE_NAME, PROFILE_NAME_RULE), MAX_THINKING)
      .default({})
      .describe(
        'Most tokens that a stream may think, by profile: {fast: 2000}; an API key may have a limit of its own, and the lower one holds (1 to 10000000 each)',
      ),
  })
  .prefault({});
export type ThinkingConfig = z.output<typeof thinkingSchema>;
