import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

/**
 * `ckv-`, a public id of 12 hexadecimal digits, and 32 random bytes in base64url. The id finds the entry, so that the
 * comparison is one of two digests and takes the same time whatever differs.
 */
const FORM = /^ckv-([0-9a-f]{12})-[A-Za-z0-9_-]{43}$/;

/** A key as it is shown once, to the one who asked for it. */
export interface NewSecret {
  id: string;
  secret: string;
  digest: string;
}

export function createSecret(): NewSecret {
  const id = randomBytes(6).toString('hex');
  const secret = `ckv-${id}-${randomBytes(32).toString('base64url')}`;
  return { id, secret, digest: digestOf(secret) };
}

/** The id inside of something that has the form of a key. */
export function idOf(presented: string): string | undefined {
  return FORM.exec(presented)?.[1];
}

/**
 * SHA-256 in hexadecimal; what is stored. A slow hash protects passwords, which can be guessed; 256 random bits cannot,
 * and a slow hash on every request would be a way to keep the gateway busy.
 */
export function digestOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

/** Whether `presented` is the key with this digest, in constant time. */
export function matches(presented: string, digest: string): boolean {
  return timingSafeEqual(createHash('sha256').update(presented).digest(), Buffer.from(digest, 'hex'));
}
