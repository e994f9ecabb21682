import { z } from 'zod';
import { share, whole } from '../../common/bounds.ts';
import { BALANCE_RULES } from './balance.ts';
import { FAMILIES } from './discovery.ts';
import { UNLISTED } from './routing.ts';

const modelName = z.string().min(1, 'must not be empty').max(256, 'must have at most 256 characters');
const models = z.array(modelName).min(1, 'must name at least one model').optional();

/** The root of an OpenAI-compatible server, without a trailing slash. */
const backendUrl = z
  .url({ protocol: /^https?$/, error: 'must be an http or https address such as http://127.0.0.1:8000' })
  .refine((text) => {
    const { username, password, search, hash } = new URL(text);
    return username === '' && password === '' && search === '' && hash === '';
  }, 'must not hold a user, a query or a fragment')
  .refine((text) => !/\/v1\/?$/.test(new URL(text).pathname), 'must be the root of the server, without /v1')
  .transform((text) => text.replace(/\/+$/, ''));

/** What a server asks for, sent as `Authorization: Bearer`. */
const apiKey = z
  .string()
  .regex(/^[\x21-\x7e]{1,4096}$/, 'must be 1 to 4096 printable characters without a space')
  .optional();

/** Whether the server takes `vllm_xargs`; undefined: its first answers tell. */
const xargs = z.boolean('must be true or false').optional();

/** Undefined: 1. */
const weight = whole(0, 1_000).optional();

const staticEntry = z.strictObject({
  url: backendUrl,
  policyAddress: z.string().min(1).optional(),
  models,
  apiKey,
  xargs,
  weight,
});

const dnsEntry = z.strictObject({
  dns: z
    .string()
    .regex(/^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?$/, 'must be a host name such as vllm.default.svc'),
  port: whole(1, 65_535),
  scheme: z.enum(['http', 'https'], 'must be http or https').default('http'),
  path: z
    .string()
    .regex(/^(\/[^?#/]+)*$/, 'must be empty or a path without a trailing slash')
    .refine((path) => !path.endsWith('/v1'), 'must be the root of the server, without /v1')
    .default(''),
  interval_ms: whole(100, 3_600_000).default(10_000),
  family: z.enum(FAMILIES, `must be one of ${FAMILIES.join(', ')}`).default('auto'),
  policyPort: whole(1, 65_535).optional(),
  models,
  apiKey,
  xargs,
  weight,
});

type Entry = z.output<typeof staticEntry> | z.output<typeof dnsEntry>;

/** An address alone stands for an entry with nothing else. Not a union: its errors would name neither field nor value. */
const backend = z.unknown().transform((value, context): Entry => {
  const isDns = typeof value === 'object' && value !== null && 'dns' in value;
  const result =
    typeof value === 'string' ? backendUrl.safeParse(value) : (isDns ? dnsEntry : staticEntry).safeParse(value);
  if (result.success) return typeof result.data === 'string' ? { url: result.data } : result.data;
  for (const { message, path } of result.error.issues) {
    context.issues.push({ code: 'custom', message, path, input: value });
  }
  return z.NEVER;
});

const nameOf = (entry: Entry) => ('dns' in entry ? entry.dns : entry.url);

/** Options of the section `gateway` that say where requests go. Times are milliseconds. */
export const fleetOptions = {
  backends: z
    .array(backend)
    .min(1, 'must name at least one backend')
    .max(256, 'must name at most 256 backends')
    .refine((list) => new Set(list.map(nameOf)).size === list.length, 'must not name a backend twice')
    .default([{ url: 'http://127.0.0.1:8000' }])
    .meta({
      description:
        'Servers to send requests to: [{url: http://127.0.0.1:8000, policyAddress: 127.0.0.1:50051, models: [m], apiKey: ...}, ...], or DNS names, looked up at intervals: {dns: vllm.default.svc, port: 8000, scheme: http, path: "", interval_ms: 10000, policyPort: 50051, family: auto}, where family is auto (IPv4 where a name has both, so that a pod is one backend), ipv4, ipv6 or both; apiKey is the credential that the server requires; xargs: false for a server that refuses vllm_xargs, which is found out without it; weight: its part of the requests beside the weights of the other backends of a model, of each address of a name (0 to 1000, default 1; 0: only requests that no other backend can take)',
      hides: /key|token|secret/i,
    }),
  dns_servers: z
    .array(z.string().min(1))
    .max(8, 'must name at most 8 servers')
    .default([])
    .describe('Name servers to use in place of those of the system, as host:port'),
  policy_token: z
    .string()
    .min(1)
    .optional()
    .describe('Shared token of the policy services beside the backends')
    .meta({ secret: true, fixed: true }),
  policy_ca: z
    .string()
    .min(1)
    .optional()
    .describe('PEM file of the certificate authority of the policy services; turns TLS on')
    .meta({ fixed: true }),
  models: z
    .strictObject({
      aliases: z
        .record(modelName, modelName)
        .default({})
        .describe('Additional names of models: {gpt-4o: Qwen/Qwen3-8B}; the backend gets the name on the right'),
      learn: z
        .boolean()
        .default(true)
        .describe(
          'With several backends: ask each for its models, and send a request only to those that serve its model',
        ),
      unlisted: z
        .enum(UNLISTED)
        .default('refuse')
        .describe(
          'With several backends, a request for a model that none of them lists: refuse is a 404; any sends it to any of them, for servers that load adapters on demand',
        ),
      interval_ms: whole(500, 3_600_000).default(30_000).describe('Time between two such requests (500 to 3600000)'),
    })
    .prefault({}),
  balance: z
    .strictObject({
      rule: z
        .enum(BALANCE_RULES)
        .default('least_outstanding')
        .describe(`Rule that picks one of several backends: ${BALANCE_RULES.join(', ')}`),
      prefix_bytes: whole(16, 1_048_576)
        .default(16_384)
        .describe(
          'prefix_affinity: bytes that are compared of the first user message, and as many of what comes before it (16 to 1048576)',
        ),
      session_header: z
        .string()
        .regex(/^[a-z0-9-]{1,64}$/, 'must be the name of a header in lower case')
        .default('x-session-id')
        .describe(
          'prefix_affinity: header that names a conversation, as prompt_cache_key, metadata.user_id and user do in a body',
        ),
      load_factor: z
        .number('must be a number from 1 to 10')
        .min(1)
        .max(10)
        .default(1.25)
        .describe('prefix_affinity: most requests at a backend, as a multiple of the average (1 to 10)'),
      room_share: share()
        .default(0.1)
        .describe('kv_headroom: share of free KV blocks above which a backend has room (0 to 1)'),
      headroom_interval_ms: whole(100, 600_000)
        .default(1_000)
        .describe('kv_headroom: time between two checks of the pools (100 to 600000)'),
    })
    .prefault({}),
  health: z
    .strictObject({
      interval_ms: whole(0, 3_600_000)
        .default(5_000)
        .describe('Time between two checks of a backend; 0: no checks (to 3600000)'),
      timeout_ms: whole(50, 60_000).default(2_000).describe('Timeout of a check (50 to 60000)'),
      failures: whole(1, 100).default(3).describe('Failed checks in a row that make a backend unhealthy (1 to 100)'),
      path: z
        .string()
        .regex(/^\/[^?#]*$/, 'must be a path')
        .default('/health')
        .describe('Path of the check'),
    })
    .prefault({}),
  breaker: z
    .strictObject({
      failures: whole(1, 10_000)
        .default(5)
        .describe(
          'Failures in a row (no connection, no answer, status 500 and above) that open the breaker (1 to 10000)',
        ),
      failure_share: share().default(0.5).describe('Share of failed requests that opens the breaker (0 to 1)'),
      min_requests: whole(1, 1_000_000)
        .default(20)
        .describe('Requests in the window before the share counts (1 to 1000000)'),
      window_ms: whole(100, 3_600_000)
        .default(10_000)
        .describe('Window in which the share is counted (100 to 3600000)'),
      open_ms: whole(50, 3_600_000)
        .default(5_000)
        .describe('Time until one request may test the backend; doubles with each failed test (50 to 3600000)'),
      open_max_ms: whole(50, 3_600_000).default(60_000).describe('Longest such time (50 to 3600000)'),
      max_ejected_share: share()
        .default(0.5)
        .describe(
          'Largest share of the backends for a model that is left out as unhealthy or open; beyond it, they get requests all the same (0 to 1)',
        ),
    })
    .prefault({}),
  responses: z
    .strictObject({
      remember_s: whole(1, 31_536_000)
        .default(86_400)
        .describe(
          'How long the gateway remembers which backend made a response, and for which key, in seconds (1 to 31536000)',
        ),
      remember_max: whole(1, 10_000_000)
        .default(100_000)
        .describe('Most responses that are remembered (1 to 10000000)'),
    })
    .prefault({}),
} as const;

const fleetSchema = z.strictObject(fleetOptions);
export type FleetSettings = z.output<typeof fleetSchema>;
