import { z } from 'zod';
import { whole } from '../../common/bounds.ts';
import { PROFILE_NAME, PROFILE_NAME_RULE } from '../../common/profile-name.ts';
import { MODES } from '../../common/protocol.ts';
import { MAX_THINKING } from '../thinking/config.ts';

export const KEY_NAME = /^[A-Za-z0-9._-]{1,64}$/;
export const KEY_NAME_RULE = 'must be 1 to 64 of A-Z a-z 0-9 . _ -';

const names = <T extends string>(most: number, name: z.ZodType<T>) =>
  z.array(name).min(1, 'must name at least one').max(most, `must name at most ${most}`).readonly();

/** What a key may do; the command line has an option for each. What is left out is not limited. */
export const grantsShape = {
  models: names(256, z.string().min(1).max(256))
    .optional()
    .describe('Models that the key may use, comma-separated, as clients name them'),
  requests_per_minute: whole(1, 10_000_000).optional().describe('Most requests per minute (1 to 10000000)'),
  tokens_per_minute: whole(1, 1_000_000_000)
    .optional()
    .describe('Most tokens, input and output, per minute (1 to 1000000000)'),
  concurrent_requests: whole(1, 100_000).optional().describe('Most concurrent requests (1 to 100000)'),
  tokens_per_day: whole(1, 1_000_000_000_000)
    .optional()
    .describe('Most tokens, input and output, per day (UTC) (1 to 1000000000000)'),
  priority: whole(-100, 100)
    .default(0)
    .describe('Requests with a higher number leave a queue first (-100 to 100, default 0)'),
  profiles: names(64, z.string().regex(PROFILE_NAME, PROFILE_NAME_RULE))
    .optional()
    .describe('Profiles that the key may use, comma-separated; the first one applies when a request names none'),
  modes: names(MODES.words.length, z.enum(MODES.words))
    .optional()
    .describe(`Modes that the key may use, comma-separated: ${MODES.words.join(', ')}`),
  budget_tokens_min: whole(1, 2 ** 31 - 1)
    .optional()
    .describe('Lowest crystal_kv.budget_tokens that the key may ask for (1 to 2147483647)'),
  budget_tokens_max: whole(1, 2 ** 31 - 1)
    .optional()
    .describe('Highest crystal_kv.budget_tokens that the key may ask for (1 to 2147483647)'),
  max_thinking_tokens: MAX_THINKING.optional().describe(
    'Most tokens that a stream may think before it is ended (1 to 10000000)',
  ),
};

/** A virtual key as it is stored: everything but the key. */
export const keyEntry = z
  .strictObject({
    id: z.string().regex(/^[0-9a-f]{12}$/, 'must be 12 hexadecimal digits'),
    name: z.string().regex(KEY_NAME, KEY_NAME_RULE),
    sha256: z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 hexadecimal digits'),
    created: z.iso.datetime('must be a time such as 2026-01-31T12:00:00.000Z'),
    ...grantsShape,
  })
  .refine(
    ({ budget_tokens_min: min, budget_tokens_max: max }) => min === undefined || max === undefined || min <= max,
    {
      error: 'must not be above budget_tokens_max',
      path: ['budget_tokens_min'],
    },
  );
export type KeyEntry = Readonly<z.output<typeof keyEntry>>;

/** More than this would be a user database, which this is not. */
export const MAX_KEYS = 10_000;

/** Keys that cannot be used. The message names place, option, value and bounds; never a key. */
export class KeyError extends Error {
  override readonly name = 'KeyError';
}

/** Checks what a store holds. `place` is for messages. Throws KeyError. */
export function readEntries(value: unknown, place: string): KeyEntry[] {
  if (!Array.isArray(value)) throw new KeyError(`${place} must be a list of keys`);
  if (value.length > MAX_KEYS) throw new KeyError(`${place} has ${value.length} keys; the maximum is ${MAX_KEYS}`);
  const entries = value.map((item: unknown, index) => readEntry(item, `${place}, key ${index + 1}`));
  for (const field of ['id', 'name'] as const) {
    const seen = new Set<string>();
    for (const entry of entries) {
      if (seen.has(entry[field])) throw new KeyError(`${place} has the ${field} ${entry[field]} twice`);
      seen.add(entry[field]);
    }
  }
  return entries;
}

/** Throws KeyError with one line for each problem. */
export function readEntry(value: unknown, place: string): KeyEntry {
  const result = keyEntry.safeParse(value);
  if (result.success) return Object.freeze(result.data);
  const lines = result.error.issues.map(({ path, message }) => {
    const field = path.map(String).join('.');
    if (field === '' || field === 'sha256') return `${place}: ${field === '' ? '' : 'sha256 '}${message}`;
    const found = (value as Record<string, unknown>)[String(path[0])];
    return `${place}: ${field} is ${JSON.stringify(found) ?? 'missing'}: ${message}`;
  });
  throw new KeyError(lines.join('\n'));
}
