import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { ConfigError } from '../common/config.ts';
import { LOG_LEVELS } from '../common/logger.ts';
import type { MeasureIntervals } from './measure/measure-rate.ts';
import { DEFAULT_PROFILE, type Profile, type ProfileConfig, toProfile } from './request/profiles.ts';

export const CALIBRATION_MODES = ['auto', 'off'] as const;

const interval = z.int().min(0).max(10_000);
const port = z.int().min(0).max(65_535);

/** Section `policy_service`. What is `fixed` is read at the start only. */
export const policyServiceSchema = z.strictObject({
  enabled: z
    .union([z.boolean(), z.literal([0, 1]).transform((value) => value === 1)], {
      error: 'expected true, false, 1 or 0',
    })
    .default(true)
    .meta({
      env: 'CRYSTALKV_ENABLED',
      description: 'false or 0: all evictions stop at once, whatever requests ask for',
    }),
  host: z.string().min(1).default('127.0.0.1').meta({ description: 'gRPC address', fixed: true }),
  port: port.default(50051).meta({ description: 'gRPC port; 0 takes a free one', fixed: true }),
  metrics_host: z.string().min(1).default('127.0.0.1').meta({ fixed: true }),
  metrics_port: port.default(9091).meta({ description: 'port of /metrics and /health', fixed: true }),
  log_level: z.enum(LOG_LEVELS).default('info'),
  default_profile: z.string().min(1).default(DEFAULT_PROFILE),
  measure_every: interval.default(8).meta({ description: 'engines measure requests at every n-th step; 0: never' }),
  measure_every_idle: interval
    .default(64)
    .meta({ description: 'likewise, while memory is free and no request is near its budget' }),
  statistics: z
    .strictObject({
      attention_half_life_tokens: z.number().min(1).max(1e9).default(400).meta({
        description: 'tokens after which the attention that a token received counts half when blocks are merged',
      }),
      peak_half_life_tokens: z.number().min(1).max(1e9).default(865).meta({
        description: 'the same for the most attention that one query gave it',
      }),
    })
    .prefault({}),
  calibration: z
    .strictObject({
      mode: z.enum(CALIBRATION_MODES).default('off').meta({
        description: 'auto: measure only the head groups that predict best, chosen for each model; off: measure all',
      }),
      groups: z.int().min(1).max(4096).default(8).meta({ description: 'most head groups that auto chooses' }),
      requests: z.int().min(1).max(1000).default(8).meta({
        description: 'requests that auto observes, with their whole cache, before it chooses',
      }),
      cache_dir: z
        .string()
        .min(1)
        .default(join(homedir(), '.cache', 'crystal-kv', 'calibration'))
        .meta({ description: 'folder in which the choices are saved, one file for each model' }),
    })
    .prefault({})
    .meta({ fixed: true }),
  auth_token: z.string().min(16).optional().meta({
    description: 'shared token of at least 16 characters, sent as metadata authorization: Bearer',
    secret: true,
    fixed: true,
  }),
  tls: z
    .strictObject({
      cert: z.string().min(1).optional().meta({ description: 'PEM file of the certificate chain' }),
      key: z.string().min(1).optional().meta({ description: 'PEM file of the private key' }),
      client_ca: z
        .string()
        .min(1)
        .optional()
        .meta({ description: 'PEM file of an authority; clients must show a certificate signed by it' }),
    })
    .prefault({})
    .meta({ fixed: true }),
  limits: z
    .strictObject({
      min_budget_tokens: z.int().min(1).max(1_048_576).default(16),
      max_budget_tokens: z.int().min(1).max(1_048_576).default(1_048_576),
      max_request_tokens: z.int().min(1).max(16_777_216).default(1_048_576),
    })
    .prefault({})
    .refine((limits) => limits.min_budget_tokens <= limits.max_budget_tokens, {
      message: 'min_budget_tokens must not be above max_budget_tokens',
      path: ['min_budget_tokens'],
    }),
});

export type PolicyServiceConfig = z.output<typeof policyServiceSchema>;

export interface Config {
  service: PolicyServiceConfig;
  profiles: Record<string, ProfileConfig>;
}

/** Of the statistics that engines keep of each token. */
export interface HalfLives {
  /** Tokens after which attention that was received counts half. */
  attentionTokens: number;
  /** The same for the most attention that one query gave. */
  peakTokens: number;
}

/** The part of the configuration that may change while the service runs. */
export interface Settings extends MeasureIntervals {
  enabled: boolean;
  halfLives: HalfLives;
  defaultProfile: Profile;
  profiles: ReadonlyMap<string, Profile>;
  limits: { minBudgetTokens: number; maxBudgetTokens: number; maxRequestTokens: number };
}

/** Throws ConfigError when the sections do not fit together. */
export function settingsOf({ service, profiles }: Config): Settings {
  const resolved = new Map(Object.entries(profiles).map(([name, profile]) => [name, toProfile(name, profile)]));
  const defaultProfile = resolved.get(service.default_profile);
  if (defaultProfile === undefined) {
    const known = [...resolved.keys()].join(', ');
    throw new ConfigError(
      `policy_service.default_profile is ${JSON.stringify(service.default_profile)}: no such profile; known: ${known}`,
    );
  }
  return {
    enabled: service.enabled,
    halfLives: {
      attentionTokens: service.statistics.attention_half_life_tokens,
      peakTokens: service.statistics.peak_half_life_tokens,
    },
    defaultProfile,
    profiles: resolved,
    measureEvery: service.measure_every,
    measureEveryIdle: service.measure_every_idle,
    limits: {
      minBudgetTokens: service.limits.min_budget_tokens,
      maxBudgetTokens: service.limits.max_budget_tokens,
      maxRequestTokens: service.limits.max_request_tokens,
    },
  };
}

/** Refuses a public address without TLS or a token. Throws ConfigError. */
export function checkExposure({ host, tls, auth_token }: PolicyServiceConfig): void {
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    throw new ConfigError('policy_service.tls needs both cert and key, or neither');
  }
  if (tls.client_ca !== undefined && tls.cert === undefined) {
    throw new ConfigError('policy_service.tls.client_ca needs cert and key');
  }
  if (isLoopback(host) || tls.cert !== undefined || auth_token !== undefined) return;
  throw new ConfigError(
    `policy_service.host is ${JSON.stringify(host)}: to listen on a public address, set tls.cert and tls.key, or auth_token`,
  );
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}
