import { createHash } from 'node:crypto';
import { type EvictionMode, MODES } from '../../common/protocol.ts';
import type { RequestOptions } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { Settings } from '../config.ts';
import type { ControllerOptions } from '../controllers/registry.ts';
import type { Profile } from './profiles.ts';

/** What a request is governed by; changes when the configuration is reloaded. */
export interface Governance {
  profile: Profile;
  controller: ControllerOptions;
  mode: EvictionMode;
  /** In shadow mode so that the evictions of the requests around it can be judged. */
  canary: boolean;
}

/** What a request's governance depends on. */
export interface Governed {
  options: RequestOptions | undefined;
  /** Decides whether the request is a canary: the gateway's id, so that it stays one after a reconnect. */
  canaryKey: string;
  /** It is to keep its whole cache, so that head groups can be chosen by it. */
  calibrates?: boolean;
}

/**
 * What governs a request: its profile, or the default one when it names none or an unknown one; its own mode before the
 * profile's; its own budget, clamped to the service's bounds, before the profile's controller. The switch of the whole
 * service comes before everything. Of the requests that leave enforcing to their profile, its share of canaries is shadowed,
 * and those that calibrate.
 */
export function governanceOf(
  { options, canaryKey, calibrates = false }: Governed,
  settings: Settings,
  onUnknownProfile: (name: string) => void = () => {},
): Governance {
  const name = options?.profile ?? '';
  const named = settings.profiles.get(name);
  if (name !== '' && named === undefined) onUnknownProfile(name);
  const profile = named ?? settings.defaultProfile;
  const asked = options && MODES.word(options.mode);
  const planned = settings.enabled ? (asked ?? profile.mode) : 'off';
  const canary =
    planned === 'enforce' && asked === undefined && (calibrates || isCanary(canaryKey, profile.canaryShare));
  const mode = canary ? 'shadow' : planned;
  const { minBudgetTokens, maxBudgetTokens } = settings.limits;
  const clamp = (tokens: number) => Math.min(maxBudgetTokens, Math.max(minBudgetTokens, tokens));
  if (options?.budgetTokens !== undefined) {
    return { profile, mode, canary, controller: { type: 'fixed', budgetTokens: clamp(options.budgetTokens) } };
  }
  const { controller } = profile;
  if (controller.type !== 'fixed') return { profile, mode, canary, controller };
  return { profile, mode, canary, controller: { type: 'fixed', budgetTokens: clamp(controller.budgetTokens) } };
}

/** The same for every request with this key, and for a larger share all those of a smaller one. */
export function isCanary(key: string, share: number): boolean {
  if (share <= 0) return false;
  return createHash('sha256').update(key).digest().readUInt32BE(0) < share * 2 ** 32;
}
