import { NULL_RULES, PUBLISHED_RULES, profileOf } from '../token-rules.ts';

/** A way to manage the cache that is compared: a name in figures, a name for people, and the profile. */
export interface Candidate {
  key: string;
  title: string;
  profile: Readonly<Record<string, unknown>>;
}

/** What is published, on the same signals, protections and budgets. Half-lives are in tokens; 1.4 is the paper's decay. */
export const BASELINES: readonly Candidate[] = [
  { key: 'window', title: 'window', profile: { policy: 'window' } },
  { key: 'random', title: 'random', profile: { policy: 'random' } },
  { key: 'h2o', title: 'h2o', profile: { policy: 'h2o' } },
  { key: 'h2o_norm', title: 'h2o-norm', profile: { policy: 'h2o-norm' } },
  { key: 'tova', title: 'tova', profile: { policy: 'tova' } },
  { key: 'snapkv', title: 'snapkv', profile: { policy: 'snapkv' } },
  { key: 'raas', title: 'raas', profile: { policy: 'raas' } },
  { key: 'lazy', title: 'lazy', profile: { policy: 'lazy' } },
  { key: 'crf_1', title: 'crf, half-life 1.4', profile: { policy: 'crf', half_life_tokens: 1.36 } },
  { key: 'crf_400', title: 'crf, half-life 400', profile: { policy: 'crf', half_life_tokens: 400 } },
];

/** As shipped. */
export const CRYSTAL: Candidate = { key: 'crystal', title: 'crystal', profile: { policy: 'crystal' } };

const evicting = { policy: 'crystal', merge: false };

export const EVICTING: Candidate = { key: 'crystal_evict', title: 'crystal without merging', profile: evicting };

/** `crystal` with parts taken out. Merging makes the others idle, so they are taken out of what is left without it. */
export const ABLATIONS: readonly Candidate[] = [
  EVICTING,
  {
    key: 'no_probe',
    title: 'without merging and probes',
    profile: { ...evicting, probe: { max_extra_share: 0 } },
  },
  {
    key: 'no_segments',
    title: 'without merging and segments',
    profile: { ...evicting, crystal: { segments: false } },
  },
  {
    key: 'no_recurrence',
    title: 'without merging and recurrence',
    profile: { ...evicting, crystal: { recurrence: false } },
  },
  {
    key: 'merge_only',
    title: 'merging, blocks by age alone',
    profile: { policy: 'window', merge: true },
  },
];

/** Rules that choose tokens. The keys are in published figures. */
export const TOKEN_LEVEL: readonly Candidate[] = [...NULL_RULES, ...PUBLISHED_RULES].map((rule) => ({
  key: [rule.policy, ...(rule.lambda === undefined ? [] : [100 * rule.lambda]), 'tokens'].join('_'),
  title: [rule.policy, ...(rule.lambda === undefined ? [] : [`lambda ${rule.lambda}`]), 'tokens'].join(', '),
  profile: profileOf(rule),
}));

/** Of a pool that is too small: nothing leaves it, or what the default profile takes, as shipped. */
export const UNDER_PRESSURE: readonly Candidate[] = [
  { key: 'stock', title: 'nothing evicted', profile: { policy: 'full' } },
  { key: 'default', title: 'default profile', profile: { policy: 'crystal' } },
  { key: 'default_evict', title: 'default profile without merging', profile: evicting },
];

/** What a sweep of the defaults tries; on other seeds than any table. */
export const SWEEP: readonly Candidate[] = [
  ...[1.36, 8, 32, 70, 150, 400, 800, 1600].map((tokens) => ({
    key: `crf_${Math.round(tokens)}`,
    title: `crf, half-life ${tokens}`,
    profile: { policy: 'crf', half_life_tokens: tokens },
  })),
  ...[0.02, 0.05, 0.1, 0.2].flatMap((share) =>
    [{ policy: 'crf', half_life_tokens: 400 }, { policy: 'lazy' }].map((profile) => ({
      key: `${profile.policy}_hit_${share * 100}`,
      title: `${profile.policy}, hit from ${share * 100} %`,
      profile: { ...profile, hits: { rule: 'mass', share } },
    })),
  ),
  ...[32, 64, 128].flatMap((every) =>
    [0.6, 0.8, 0.95].map((decay) => ({
      key: `probe_${every}_${decay * 100}`,
      title: `crystal without merging, probe every ${every}, decay ${decay}`,
      profile: { ...evicting, probe: { every_tokens: every, decay } },
    })),
  ),
];
