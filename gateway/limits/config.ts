import { z } from 'zod';
import { whole } from '../../common/bounds.ts';

/** The part `gateway.limits` of the configuration: how tokens of running requests are counted before they are known. */
export const limitsSchema = z
  .strictObject({
    reserve_prompt_max: whole(0, 10_000_000)
      .default(8_192)
      .describe(
        'Most tokens reserved for a prompt with images or audio; the estimate is a quarter of its bytes (0 to 10000000)',
      ),
    reserve_output: whole(0, 10_000_000)
      .optional()
      .describe(
        "Tokens reserved for the output of a request that sets no limit (0 to 10000000; default: the length of its model, which the server's list of models tells, else 1024)",
      ),
  })
  .prefault({});
export type LimitsConfig = z.output<typeof limitsSchema>;
