import { z } from 'zod';
import { PROFILE_NAME } from '../../common/profile-name.ts';
import { type EvictionMode, MODES } from '../../common/protocol.ts';
import { GatewayError } from '../errors.ts';
import { OPTION } from './rewrite.ts';

/** What a request may ask of the KV cache with its `crystal_kv` member. */
export interface CrystalKvOption {
  profile?: string | undefined;
  budget_tokens?: number | undefined;
  mode?: EvictionMode | undefined;
  /** The response's usage is to tell what became of the cache. */
  report?: boolean | undefined;
}

export interface OptionLimits {
  budgetTokens: { min: number; max: number };
  /** The names that may be asked for; empty: any short plain name, and the policy service knows. */
  profiles: readonly string[];
  modes?: readonly EvictionMode[] | undefined;
}

const SHOWN_CHARACTERS = 80;

function optionFields(limits: OptionLimits) {
  const { min, max } = limits.budgetTokens;
  const known = limits.profiles;
  const modes = limits.modes ?? MODES.words;
  return {
    profile: {
      schema: known.length === 0 ? z.string().regex(PROFILE_NAME) : z.enum(known),
      must:
        known.length === 0
          ? 'a name of 1 to 64 letters, digits, dots, dashes or underscores'
          : `one of ${known.join(', ')}`,
    },
    budget_tokens: { schema: z.int().min(min).max(max), must: `an integer from ${min} to ${max}` },
    mode: { schema: z.enum(modes), must: `one of ${modes.join(', ')}` },
    report: { schema: z.boolean(), must: 'true or false' },
  };
}

/** What an option may look like within these limits. */
export function optionSchema(limits: OptionLimits) {
  const { profile, budget_tokens, mode, report } = optionFields(limits);
  return z.strictObject({
    profile: profile.schema.optional(),
    budget_tokens: budget_tokens.schema.optional(),
    mode: mode.schema.optional(),
    report: report.schema.optional(),
  });
}

/** Makes the function that checks an option. It throws `invalid_option`, which names field, value and bounds. */
export function createOptionParser(limits: OptionLimits): (value: unknown) => CrystalKvOption {
  const fields = optionFields(limits);
  const names = Object.keys(fields).join(', ');
  const schema = optionSchema(limits);

  return function parseOption(value) {
    const result = schema.safeParse(value);
    if (result.success) return result.data;
    const [issue] = result.error.issues;
    const field = issue?.path[0];
    if (issue?.code === 'unrecognized_keys') {
      const [first] = issue.keys;
      throw new GatewayError('invalid_option', {
        message: `${OPTION} has no field ${issue.keys.map(shown).join(', ')}; known: ${names}`,
        param: first === undefined ? OPTION : `${OPTION}.${first.slice(0, SHOWN_CHARACTERS)}`,
      });
    }
    if (field === undefined) {
      throw new GatewayError('invalid_option', {
        message: `${OPTION} is ${shown(value)}: must be an object with the fields ${names}`,
        param: OPTION,
      });
    }
    const name = field as keyof typeof fields;
    throw new GatewayError('invalid_option', {
      message: `${OPTION}.${name} is ${shown((value as Record<string, unknown>)[name])}: must be ${fields[name].must}`,
      param: `${OPTION}.${name}`,
    });
  };
}

function shown(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length <= SHOWN_CHARACTERS ? text : `${text.slice(0, SHOWN_CHARACTERS)}...`;
}
