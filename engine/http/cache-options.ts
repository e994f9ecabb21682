import { z } from 'zod';
import { MODES } from '../../common/protocol.ts';
import type { CacheOptions } from '../types.ts';
import { ApiError, show } from './errors.ts';
import { integer } from './sampling-fields.ts';

const MAX_NAME_LENGTH = 128;
const name = z
  .string({ error: 'must be a string' })
  .max(MAX_NAME_LENGTH, { error: `must have at most ${MAX_NAME_LENGTH} characters` });
const modes = new Intl.ListFormat('en-GB', { type: 'disjunction' }).format(MODES.words.map((word) => `"${word}"`));
const mode = z.enum(MODES.words, { error: `must be ${modes}` });

/** Our keys in `vllm_xargs`. The bounds are those of the protocol; the policy service clamps values to its own. */
const KEYS = {
  crystalkv_id: name,
  crystalkv_profile: name,
  crystalkv_budget_tokens: integer(0, 2 ** 32 - 1),
  crystalkv_mode: mode,
} as const;

/**
 * The cache options in `vllm_xargs`. As in vLLM, values are strings, numbers or lists of them, and booleans count as 0
 * and 1. Throws an `invalid` ApiError for anything else, even under keys that are not ours.
 */
export function parseCacheOptions(xargs: Readonly<Record<string, unknown>> | null | undefined): CacheOptions {
  const values = Object.fromEntries(Object.entries(xargs ?? {}).map(([key, value]) => [key, toXarg(key, value)]));
  return {
    crystalkvId: read(values, 'crystalkv_id') ?? '',
    profile: read(values, 'crystalkv_profile') ?? '',
    budgetTokens: read(values, 'crystalkv_budget_tokens'),
    mode: read(values, 'crystalkv_mode'),
  };
}

function read<K extends keyof typeof KEYS>(
  values: Record<string, unknown>,
  key: K,
): z.output<(typeof KEYS)[K]> | undefined {
  const value = values[key];
  if (value === undefined) return undefined;
  const result = KEYS[key].safeParse(value);
  if (result.success) return result.data as z.output<(typeof KEYS)[K]>;
  throw refuse(key, value, result.error.issues[0]?.message ?? 'is not valid');
}

function toXarg(key: string, value: unknown): unknown {
  if (Array.isArray(value) && value.every(isScalar)) return value.map(toNumber);
  if (isScalar(value)) return toNumber(value);
  throw refuse(key, value, 'must be a string, a number or a list of them');
}

function isScalar(value: unknown): boolean {
  return ['string', 'number', 'boolean'].includes(typeof value);
}

function toNumber(value: unknown): unknown {
  return typeof value === 'boolean' ? Number(value) : value;
}

function refuse(key: string, value: unknown, problem: string): ApiError {
  const path = `vllm_xargs.${key}`;
  return new ApiError('invalid', `${path} is ${show(value)}: ${problem}`, path);
}
