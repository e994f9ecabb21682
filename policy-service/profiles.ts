import { z } from 'zod';
import { type EvictionMode, MODES, PROFILE_NAME, PROFILE_NAME_RULE } from '../common/cache-options.ts';
import { HIT_RULES, type HitTest } from './masses.ts';
import type { PolicyDefinition, PolicyParameters } from './policies/policy.ts';
import { POLICIES, POLICY_NAMES } from './policies/registry.ts';
import type { ProbeOptions } from './probe-schedule.ts';

/** What a request gets when neither its options nor the configuration say otherwise. */
export const DEFAULT_PROFILE = 'default';

const share = z.number().min(0).max(1);

const fixedSchema = z.strictObject({
  type: z.literal('fixed'),
  budget_tokens: z.int().min(1).max(1_048_576),
});

const pressureSchema = z
  .strictObject({
    type: z.literal('pressure'),
    /** Evictions begin when less than this share of the pool is free. */
    low_free_share: share.default(0.1),
    /** They end when this share is free; requests that wait for memory count as pressure below it. */
    high_free_share: share.default(0.2),
    /** Answer probes begin when less than this share is free, so that they are known when evictions begin. */
    probe_free_share: share.default(0.4),
    /** Output tokens that every request keeps, and the share of all that it ever had; that share once it answers. */
    floor_tokens: z.int().min(1).max(1_048_576).default(256),
    floor_share: share.default(0.75),
    answer_floor_share: share.default(0.5),
  })
  .refine((value) => value.low_free_share <= value.high_free_share, {
    message: 'low_free_share must not be above high_free_share',
    path: ['low_free_share'],
  });

const profileSchema = z.strictObject({
  policy: z.enum(POLICY_NAMES),
  controller: z.discriminatedUnion('type', [fixedSchema, pressureSchema]).prefault({ type: 'pressure' }),
  mode: z.enum(MODES).default('enforce'),
  half_life_tokens: z.number().positive().max(1e9).default(70),
  /** Which attention on a block is a hit: a share of a head group's attention, or its top-p nucleus. */
  hits: z
    .strictObject({ rule: z.enum(HIT_RULES), share: z.number().gt(0).max(1) })
    .default({ rule: 'mass', share: 0.1 }),
  seed: z.int().min(0).max(0xffff_ffff).default(0),
  /** What the policy crystal weighs; parts of it can be switched off, to see what they are worth. */
  crystal: z
    .strictObject({
      answer_weight: z.number().min(0).max(1000).default(0.3),
      segments: z.boolean().default(true),
      recurrence: z.boolean().default(true),
    })
    .prefault({}),
  /** Blocks are not evicted but merged, where the engine can: their least repeated tokens stay. */
  merge: z.boolean().default(false),
  /** What a request thought leaves the prefix cache when it ends; default: if the policy evicts nothing. */
  release_thinking: z.boolean().optional(),
  probe: z
    .strictObject({
      every_tokens: z.int().min(1).max(1_048_576).default(64),
      max_tokens: z.int().min(1).max(1024).default(16),
      decay: share.default(0.8),
      max_extra_share: share.default(0.1),
    })
    .prefault({}),
  /** Measured steps after which a request that was met in a snapshot may be evicted without a probe. */
  cold_steps: z.int().min(0).max(1_000_000).default(16),
});

export type ProfileConfig = z.output<typeof profileSchema>;

/** The profiles that exist when the file names none: the default, one for each policy, and the paper's decay. */
function builtIn(): Record<string, ProfileConfig> {
  const profiles: Record<string, z.input<typeof profileSchema>> = { [DEFAULT_PROFILE]: { policy: 'crystal' } };
  for (const policy of POLICY_NAMES) profiles[policy] = { policy };
  profiles['crf-paper'] = { policy: 'crf', half_life_tokens: 1.36 };
  return Object.fromEntries(Object.entries(profiles).map(([name, profile]) => [name, profileSchema.parse(profile)]));
}

/** Section `profiles`. */
export const profilesSchema = z
  .record(z.string().regex(PROFILE_NAME, PROFILE_NAME_RULE), profileSchema)
  .transform((profiles) => (Object.keys(profiles).length === 0 ? builtIn() : profiles));

export type Controlling =
  | { type: 'fixed'; budgetTokens: number }
  | {
      type: 'pressure';
      lowFreeShare: number;
      highFreeShare: number;
      probeFreeShare: number;
      floorTokens: number;
      answerFloorShare: number;
      floorShare: number;
    };

/** A named set of options, as the rest of the service uses it. */
export interface Profile {
  name: string;
  /** Name of the policy, for people and metrics. */
  policy: string;
  definition: PolicyDefinition;
  controller: Controlling;
  mode: EvictionMode;
  /** What counts as having read a block. */
  hits: HitTest;
  parameters: PolicyParameters;
  probe: ProbeOptions;
  coldSteps: number;
  releaseThinking: boolean;
  merge: boolean;
}

export function toProfile(name: string, config: ProfileConfig): Profile {
  const { controller, probe } = config;
  return {
    name,
    policy: config.policy,
    definition: POLICIES[config.policy],
    controller:
      controller.type === 'fixed'
        ? { type: 'fixed', budgetTokens: controller.budget_tokens }
        : {
            type: 'pressure',
            lowFreeShare: controller.low_free_share,
            highFreeShare: controller.high_free_share,
            probeFreeShare: controller.probe_free_share,
            floorTokens: controller.floor_tokens,
            answerFloorShare: controller.answer_floor_share,
            floorShare: controller.floor_share,
          },
    mode: config.mode,
    hits: config.hits,
    parameters: {
      halfLifeTokens: config.half_life_tokens,
      seed: config.seed,
      answerWeight: config.crystal.answer_weight,
      segments: config.crystal.segments,
      recurrence: config.crystal.recurrence,
    },
    probe: {
      everyTokens: probe.every_tokens,
      maxTokens: probe.max_tokens,
      decay: probe.decay,
      maxExtraShare: probe.max_extra_share,
    },
    coldSteps: config.cold_steps,
    merge: config.merge,
    releaseThinking: config.release_thinking ?? !POLICIES[config.policy].evicts,
  };
}
