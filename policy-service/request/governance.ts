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
  /** It keeps its whole cache as a calibration sample. */
  calibrates?: boolean;
}

/**
 * Decides what governs a request. Profile: the one that it names, or else the default. Mode: its own, or else the
 * profile's; always `off` while the service is disabled. Budget: its own, within the service's bounds, or else the
 * profile's controller. Of the requests that are enforced by their profile, canaries and calibration samples are
 * shadowed.
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

/** Depends on the key alone; the canaries of a share are among those of every larger share. */
export function isCanary(key: string, share: number): boolean {
  if (share <= 0) return false;
  return createHash('sha256').update(key).digest().readUInt32BE(0) < share * 2 ** 32;
}
