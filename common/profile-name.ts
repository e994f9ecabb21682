/** Names of profiles, in the configuration and in requests. */
export const PROFILE_NAME = /^[A-Za-z0-9._-]{1,64}$/;
export const PROFILE_NAME_RULE = 'a profile name has 1 to 64 of A-Z a-z 0-9 . _ -';
