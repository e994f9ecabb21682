import { z } from 'zod';

export const KEY_STORES = ['off', 'file', 'redis'] as const;

/** The part `gateway.keys` of the configuration. */
export const keysSchema = z
  .strictObject({
    store: z
      .enum(KEY_STORES, `must be one of ${KEY_STORES.join(', ')}`)
      .default('off')
      .describe('Where API keys are stored: file, redis (gateway.redis.url), or off: no key is required'),
    file: z
      .string()
      .min(1)
      .default('keys.json')
      .describe('Path of the key file, when keys.store is file; `npm run keys` writes it'),
  })
  .prefault({});
export type KeysConfig = z.output<typeof keysSchema>;

/** Addresses that only this machine can reach. */
export const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|::1)$/;

/** Throws nothing; says what is wrong with listening there, or undefined. */
export function exposureProblem(config: {
  host: string;
  keys: KeysConfig;
  allow_unauthenticated: boolean;
}): string | undefined {
  if (LOOPBACK.test(config.host) || config.keys.store !== 'off' || config.allow_unauthenticated) return undefined;
  return (
    `the gateway refuses to listen on ${config.host}, which other machines can reach, without API keys: set gateway.keys.store ` +
    'to file or redis, or gateway.allow_unauthenticated to true'
  );
}
