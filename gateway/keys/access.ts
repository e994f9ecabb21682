import { GatewayError } from '../errors.ts';
import { type CrystalKvOption, createOptionParser, type OptionLimits } from '../request/options.ts';
import type { KeyEntry } from './entry.ts';

/** Whether a key is for a model, by the name that clients give it. */
export function isAllowed(key: KeyEntry | undefined, model: string): boolean {
  return key?.models === undefined || key.models.includes(model);
}

/** Throws `model_not_allowed` when a key is for other models only. `model` is what the request names. */
export function checkModel(key: KeyEntry | undefined, model: string | undefined): void {
  if (key?.models === undefined || (model !== undefined && isAllowed(key, model))) return;
  throw new GatewayError('model_not_allowed', {
    message:
      model === undefined
        ? `this API key may use ${key.models.join(', ')}: the request must name its model, in a JSON body or, in a form, before the file`
        : `this API key may not use the model ${JSON.stringify(model.slice(0, 80))}; it may use ${key.models.join(', ')}`,
    param: 'model',
  });
}

/** Reads the `crystal_kv` of a request, undefined when it has none, within the bounds of its key. */
export type OptionReader = (value: unknown, key: KeyEntry | undefined) => CrystalKvOption;

/** A key only narrows `limits`. Where it leaves out what would hold by default, the first that it names holds. */
export function createOptionReader(limits: OptionLimits): OptionReader {
  const common = createOptionParser(limits);
  const byKey = new WeakMap<KeyEntry, (value: unknown) => CrystalKvOption>();

  const parserOf = (key: KeyEntry) => {
    let parser = byKey.get(key);
    if (parser === undefined) {
      parser = createOptionParser(narrowed(limits, key));
      byKey.set(key, parser);
    }
    return parser;
  };

  return function readOption(value, key) {
    if (key === undefined) return value === undefined ? {} : common(value);
    const option = value === undefined ? {} : parserOf(key)(value);
    return {
      ...option,
      profile: option.profile ?? key.profiles?.[0],
      mode: option.mode ?? (key.modes?.includes('enforce') === false ? key.modes[0] : undefined),
    };
  };
}

function narrowed(limits: OptionLimits, key: KeyEntry): OptionLimits {
  const { min, max } = limits.budgetTokens;
  return {
    budgetTokens: {
      min: Math.max(min, key.budget_tokens_min ?? min),
      max: Math.min(max, key.budget_tokens_max ?? max),
    },
    profiles: key.profiles ?? limits.profiles,
    modes: key.modes ?? limits.modes,
  };
}
