import type { RequestOptions } from '../proto/gen/crystalkv/v1/policy.ts';
import type { Settings } from './config.ts';
import { evictionMode } from './labels.ts';
import type { Governance } from './request-state.ts';

/**
 * What governs a request: its profile, or the default one when it names none or an unknown one; its own mode before the
 * profile's; its own budget, clamped to the service's bounds, before the profile's controller. The switch of the whole
 * service comes before everything.
 */
export function governanceOf(
  options: RequestOptions | undefined,
  settings: Settings,
  onUnknownProfile: (name: string) => void = () => {},
): Governance {
  const name = options?.profile ?? '';
  const named = settings.profiles.get(name);
  if (name !== '' && named === undefined) onUnknownProfile(name);
  const profile = named ?? settings.defaultProfile;
  const mode = settings.enabled ? ((options && evictionMode(options.mode)) ?? profile.mode) : 'off';
  const { minBudgetTokens, maxBudgetTokens } = settings.limits;
  const clamp = (tokens: number) => Math.min(maxBudgetTokens, Math.max(minBudgetTokens, tokens));
  if (options?.budgetTokens !== undefined) {
    return { profile, mode, controller: { type: 'fixed', budgetTokens: clamp(options.budgetTokens) } };
  }
  const { controller } = profile;
  if (controller.type !== 'fixed') return { profile, mode, controller };
  return { profile, mode, controller: { type: 'fixed', budgetTokens: clamp(controller.budgetTokens) } };
}
