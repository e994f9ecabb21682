import { z } from 'zod';
import { whole } from '../../common/bounds.ts';

export const METERING = ['off', 'passive', 'full'] as const;

/** The part `gateway.usage` of the configuration. */
export const usageSchema = z
  .strictObject({
    metering: z
      .enum(METERING, `must be one of ${METERING.join(', ')}`)
      .optional()
      .describe(
        'How tokens are counted for metrics and limits. passive: as responses report them; full: also asks for the usage of every stream, and hides it from clients that did not ask; off. Default: full with API keys, else passive',
      ),
    report_timeout_ms: whole(10, 10_000)
      .default(250)
      .describe('Longest wait for the policy service when a request asks for crystal_kv.report (10 to 10000)'),
  })
  .prefault({});
export type UsageConfig = z.output<typeof usageSchema>;

/** The part `gateway.compat` of the configuration. */
export const compatSchema = z
  .strictObject({
    reasoning_content: z
      .boolean('must be true or false')
      .default(false)
      .describe('true: chat completions also have their reasoning as reasoning_content, for older clients'),
  })
  .prefault({});
export type CompatConfig = z.output<typeof compatSchema>;
