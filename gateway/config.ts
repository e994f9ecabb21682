import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { whole } from '../common/bounds.ts';
import { LOG_LEVELS } from '../common/logger.ts';
import { PROFILE_NAME, PROFILE_NAME_RULE } from '../common/profile-name.ts';
import { admissionSchema } from './admission/config.ts';
import { retriesSchema } from './attempts/config.ts';
import { fleetOptions } from './fleet/config.ts';
import { exposureProblem, keysSchema, LOOPBACK } from './keys/config.ts';
import { limitsSchema } from './limits/config.ts';
import { redisSchema } from './redis.ts';
import { corsSchema } from './response/cors.ts';
import { thinkingSchema } from './thinking/config.ts';
import { tlsSchema } from './tls.ts';
import { compatSchema, usageSchema } from './usage/config.ts';

const MIB = 1024 * 1024;
const FIXED = { fixed: true };

const UI_SWITCH = ['auto', 'on', 'off'] as const;

/** Whether the live page is served. */
export function servesUi({ host, ui }: Pick<GatewayConfig, 'host' | 'ui'>): boolean {
  return ui.enabled === 'on' || (ui.enabled === 'auto' && LOOPBACK.test(host));
}

/** The section `gateway`. Times are milliseconds, sizes bytes. What is `fixed` is read at the start only. */
const options = z.strictObject({
  host: z
    .string()
    .min(1)
    .default('127.0.0.1')
    .describe('Address to listen on; any other than loopback needs API keys')
    .meta(FIXED),
  port: whole(0, 65_535).default(8080).describe('Port to listen on; 0 picks a free one').meta(FIXED),
  ...fleetOptions,
  keys: keysSchema.meta(FIXED),
  redis: redisSchema.meta(FIXED),
  limits: limitsSchema.meta(FIXED),
  usage: usageSchema.meta(FIXED),
  compat: compatSchema.meta(FIXED),
  thinking: thinkingSchema,
  tls: tlsSchema,
  cors: corsSchema.meta(FIXED),
  allow_unauthenticated: z
    .boolean('must be true or false')
    .default(false)
    .describe('true: listen beyond loopback without API keys; everybody who reaches the address may use the gateway')
    .meta(FIXED),
  allowed_hosts: z
    .array(z.string().min(1))
    .max(64, 'must name at most 64 hosts')
    .default([])
    .describe(
      'Without API keys, on loopback: host names that requests may be sent to, beside localhost, addresses and names without a dot; *: all. Web pages of other sites are refused unless cors.origins names them',
    )
    .meta(FIXED),
  body_limit_bytes: whole(1024, 512 * MIB)
    .default(64 * MIB)
    .describe('Largest request body; larger ones get a 413 (1024 to 536870912)')
    .meta(FIXED),
  timeouts: z
    .strictObject({
      connect_ms: whole(50, 60_000)
        .default(5_000)
        .describe('Longest time to open a connection to a backend (50 to 60000)'),
      first_byte_ms: whole(100, 3_600_000)
        .default(600_000)
        .describe(
          'Longest time from sending a request to the first byte of the response; a response that is not streamed starts only when it is complete (100 to 3600000)',
        ),
      idle_ms: whole(100, 3_600_000)
        .default(300_000)
        .describe(
          'Longest time between two pieces of a response; waiting for a slow client does not count (100 to 3600000)',
        ),
      total_ms: whole(1_000, 86_400_000)
        .default(3_600_000)
        .describe('Longest time for a whole request, retries included, and for its body to arrive (1000 to 86400000)'),
      ping_ms: whole(0, 3_600_000)
        .default(0)
        .describe(
          'Time between two ": ping" comments to a client that asked for a stream while nothing of the response has come, in the queue and in retries too, so that no balancer gives up; 0: none. With the first, status 200 and headers are sent: a later error is an error event at the end of the stream, clients do not retry it by its status, and headers of the backend are not passed on. Errors before the first ping keep their status (to 3600000)',
        ),
      keep_alive_ms: whole(1_000, 86_400_000)
        .default(65_000)
        .describe(
          "How long an idle connection of a client stays open; longer than the balancer's in front, which is 60 s in many and 600 s at Google (1000 to 86400000)",
        ),
    })
    .prefault({})
    .meta(FIXED),
  retries: retriesSchema,
  admission: admissionSchema,
  workers: whole(1, 256)
    .default(1)
    .describe('Processes that share the port (1 to 256); each has its own memory')
    .meta(FIXED),
  drain_ms: whole(0, 3_600_000)
    .default(30_000)
    .describe('How long running requests may continue after the stop signal (0 to 3600000)'),
  options: z
    .strictObject({
      budget_tokens_min: whole(1, 2 ** 31 - 1)
        .default(1)
        .describe('Lowest crystal_kv.budget_tokens that a request may ask for'),
      budget_tokens_max: whole(1, 2 ** 31 - 1)
        .default(1_048_576)
        .describe('Highest crystal_kv.budget_tokens that a request may ask for'),
    })
    .refine((bounds) => bounds.budget_tokens_min <= bounds.budget_tokens_max, {
      error: 'budget_tokens_min must not be above budget_tokens_max',
    })
    .prefault({})
    .meta(FIXED),
  ui: z
    .strictObject({
      enabled: z
        .enum(UI_SWITCH)
        .default('auto')
        .describe(`Serve the live page at /ui: ${UI_SWITCH.join(', ')}; auto: only on a loopback address`),
    })
    .prefault({})
    .meta(FIXED),
  metrics_host: z
    .string()
    .min(1)
    .optional()
    .describe('Address for metrics_port, which needs no key; default: that of host')
    .meta(FIXED),
  metrics_port: whole(0, 65_535)
    .optional()
    .describe('Separate port for /metrics, 0 for any free one; default: the main port')
    .meta(FIXED),
  log_level: z
    .enum(LOG_LEVELS)
    .default('info')
    .describe(`One of ${LOG_LEVELS.join(', ')}`),
});

export const gatewaySchema = options.superRefine((config, context) => {
  const problem = exposureProblem(config);
  if (problem !== undefined) context.addIssue({ code: 'custom', message: problem, path: ['host'] });
  if (config.keys.store === 'redis' && config.redis.url === undefined) {
    context.addIssue({ code: 'custom', message: 'needs gateway.redis.url', path: ['keys', 'store'] });
  }
});
export type GatewayConfig = z.output<typeof gatewaySchema>;

const PROFILES_FILE = new URL('../common/profiles.schema.json', import.meta.url);
const { additionalProperties } = JSON.parse(readFileSync(PROFILES_FILE, 'utf8')) as {
  additionalProperties: JsonSchema;
};
type JsonSchema = Parameters<typeof z.fromJSONSchema>[0];

/**
 * The section `profiles`. The gateway needs the names alone; what the policy service would refuse it refuses too, so that
 * both take a file or neither does.
 */
export const profilesSchema = z.record(
  z.string().regex(PROFILE_NAME, PROFILE_NAME_RULE),
  z.fromJSONSchema(additionalProperties),
);
export type ProfilesConfig = z.output<typeof profilesSchema>;
