import { z } from 'zod';
import { PROFILE_NAME, PROFILE_NAME_RULE } from '../../common/profile-name.ts';
import { type EvictionMode, MODES } from '../../common/protocol.ts';
import { share, tokenCount } from '../controllers/bounds.ts';
import { CONTROLLER_SCHEMAS, type ControllerOptions, controllerOptions } from '../controllers/registry.ts';
import { HIT_RULES, type HitTest } from '../measure/hits.ts';
import type { PolicyDefinition, PolicyParameters } from '../policies/policy.ts';
import { POLICIES, POLICY_NAMES, type PolicyName } from '../policies/registry.ts';
import type { ProbeOptions } from './probe-schedule.ts';

/** What a request gets when neither its options nor the configuration say otherwise. */
export const DEFAULT_PROFILE = 'default';

/** The policies that can tell an engine which tokens to keep. */
const MERGING = POLICY_NAMES.filter((name) => POLICIES[name].keep !== undefined);

const profileSchema = z
  .strictObject({
    policy: z.enum(POLICY_NAMES),
    controller: z.discriminatedUnion('type', CONTROLLER_SCHEMAS).prefault({ type: 'pressure' }),
    mode: z.enum(MODES.words).default('enforce'),
    /** This share of the requests that would be enforced runs in shadow mode instead, chosen by their ids. */
    canary_share: share.default(0),
    half_life_tokens: z.number().positive().max(1e9).default(400),
    /**
     * Which attention on a block is a hit: a share of a head group's attention, or its top-p nucleus. Tokens that merges
     * would have let go are read at the same share; a tenth where the rule is the nucleus.
     */
    hits: z
      .strictObject({ rule: z.enum(HIT_RULES), share: z.number().gt(0).max(1) })
      .default({ rule: 'mass', share: 0.1 }),
    seed: z.int().min(0).max(0xffff_ffff).default(0),
    /** Weights of the policy crystal. Parts of it can be switched off to see what they contribute. */
    crystal: z
      .strictObject({
        answer_weight: z.number().min(0).max(1000).default(0.3),
        segments: z.boolean().default(true),
        recurrence: z.boolean().default(true),
        /** Of a merge's room: what goes by a probed answer, and what by attention where none was probed. */
        answer_share: share.default(0.35),
        attention_share: share.default(0.7),
      })
      .prefault({}),
    /**
     * Blocks are not evicted but merged, where the engine can: it keeps tokens by the policy's rule. Default: as the
     * policy.
     */
    merge: z.boolean().optional(),
    /** What attention weighs beside redundancy for the policy rkv. */
    rkv_lambda: share.default(0.1),
    /** When the thinking ends, blocks that neither probes nor the newest reasoning read leave at once. */
    answer_release: z.boolean().default(false),
    /** The reasoning of a request leaves the prefix cache when it ends. Default: if the policy evicts nothing. */
    release_thinking: z.boolean().optional(),
    probe: z
      .strictObject({
        every_tokens: tokenCount.default(64),
        growth: z.number().min(1).max(10).default(1),
        pressure_every_tokens: tokenCount.optional(),
        max_tokens: z.int().min(1).max(1024).default(24),
        stop_after: z.int().min(0).max(1024).default(0),
        decay: share.default(0.8),
        age_tokens: z.int().min(0).max(1_048_576).default(0),
        max_extra_share: share.default(0.1),
        credit_tokens: z.int().min(0).max(1_048_576).default(128),
      })
      .prefault({}),
    /** Measured steps after which a request that was met in a snapshot may be evicted without a probe. */
    cold_steps: z.int().min(0).max(1_000_000).default(16),
  })
  .refine(({ policy, merge }) => merge !== true || POLICIES[policy].keep !== undefined, {
    error: ({ input }) =>
      `is true: the policy ${(input as { policy: PolicyName }).policy} values blocks alone; ${MERGING.join(', ')} can merge`,
    path: ['merge'],
  });

export type ProfileConfig = z.output<typeof profileSchema>;

/** The profiles that exist when the file names none: the default, one for each policy, and two variants. */
function builtIn(): Record<string, ProfileConfig> {
  const profiles: Record<string, z.input<typeof profileSchema>> = { [DEFAULT_PROFILE]: { policy: 'crystal' } };
  for (const policy of POLICY_NAMES) profiles[policy] = { policy };
  profiles['crystal-evict'] = { policy: 'crystal', merge: false };
  profiles['crf-paper'] = { policy: 'crf', half_life_tokens: 1.36 };
  return Object.fromEntries(Object.entries(profiles).map(([name, profile]) => [name, profileSchema.parse(profile)]));
}

/** Section `profiles`. */
export const profilesSchema = z
  .record(z.string().regex(PROFILE_NAME, PROFILE_NAME_RULE), profileSchema)
  .transform((profiles) => (Object.keys(profiles).length === 0 ? builtIn() : profiles));

/** A named set of options, in the form that the service uses. */
export interface Profile {
  name: string;
  /** Name of the policy, for people and metrics. */
  policy: string;
  definition: PolicyDefinition;
  controller: ControllerOptions;
  mode: EvictionMode;
  /** Share of the requests in mode `enforce` that run in shadow mode, to show what evictions would cost. */
  canaryShare: number;
  /** What counts as a read of a block. */
  hits: HitTest;
  parameters: PolicyParameters;
  probe: ProbeOptions;
  coldSteps: number;
  releaseThinking: boolean;
  answerRelease: boolean;
  merge: boolean;
}

export function toProfile(name: string, config: ProfileConfig): Profile {
  const { probe } = config;
  return {
    name,
    policy: config.policy,
    definition: POLICIES[config.policy],
    controller: controllerOptions(config.controller),
    mode: config.mode,
    canaryShare: config.canary_share,
    hits: config.hits,
    parameters: {
      halfLifeTokens: config.half_life_tokens,
      seed: config.seed,
      answerWeight: config.crystal.answer_weight,
      segments: config.crystal.segments,
      recurrence: config.crystal.recurrence,
      answerShare: config.crystal.answer_share,
      attentionShare: config.crystal.attention_share,
      rkvLambda: config.rkv_lambda,
    },
    probe: {
      everyTokens: probe.every_tokens,
      growth: probe.growth,
      pressureEveryTokens: probe.pressure_every_tokens ?? probe.every_tokens,
      maxTokens: probe.max_tokens,
      stopAfter: probe.stop_after,
      decay: probe.decay,
      ageTokens: probe.age_tokens,
      maxExtraShare: probe.max_extra_share,
      creditTokens: probe.credit_tokens,
    },
    coldSteps: config.cold_steps,
    merge: config.merge ?? POLICIES[config.policy].merges,
    answerRelease: config.answer_release && POLICIES[config.policy].needsProbe,
    releaseThinking: config.release_thinking ?? !POLICIES[config.policy].evicts,
  };
}
