import { z } from 'zod';
import { whole } from '../bounds.ts';

export const METERING = ['off', 'passive', 'full'] as const;

/** The part `gateway.usage` of the configuration. */
export const usageSchema = z
  .strictObject({
    metering: z
      .enum(METERING, `must be one of ${METERING.join(', ')}`)
      .optional()
      .describe(
        'Tokens in metrics and limits: passive counts what responses tell; full asks for the usage of every stream too, and keeps it from clients that did not; off. Without it full with API keys, else passive',
      ),
    report_timeout_ms: whole(10, 10_000)
      .default(250)
      .describe('For the policy service to say what a request kept, where crystal_kv.report asks (10 to 10000)'),
  })
  .prefault({});
export type UsageConfig = z.output<typeof usageSchema>;

/** The part `gateway.compat` of the configuration. */
export const compatSchema = z
  .strictObject({
    reasoning_content: z
      .boolean('must be true or false')
      .default(false)
      .describe('true: chat completions have their reasoning as reasoning_content too, as older clients read it'),
  })
  .prefault({});
export type CompatConfig = z.output<typeof compatSchema>;
