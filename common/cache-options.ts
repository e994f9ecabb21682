/** What a request, or its profile, may have done with its cache. */
export const MODES = ['enforce', 'shadow', 'off'] as const;
export type EvictionMode = (typeof MODES)[number];

/** Names of profiles, in the configuration and in requests. */
export const PROFILE_NAME = /^[A-Za-z0-9._-]{1,64}$/;
export const PROFILE_NAME_RULE = 'a profile name has 1 to 64 of A-Z a-z 0-9 . _ -';
