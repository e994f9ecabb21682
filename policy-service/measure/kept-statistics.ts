import type { KeptStatistics, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { HalfLives, Settings } from '../config.ts';
import { keptStatistics } from '../policies/keep.ts';
import type { Profile } from '../request/profiles.ts';

/**
 * What an engine has to keep of each token: for the rules of the default profile, and of those that requests came with
 * since `renew` was called with other settings.
 */
export function wantedStatistics(
  { statistics: announced }: { statistics: ReadonlySet<Statistic> | undefined },
  requests: ReadonlyMap<number, { profile: Profile }>,
  settings: { current: Settings },
) {
  let judged = settings.current;
  let profiles = new Set([judged.defaultProfile]);
  let statistics = announced && statisticsFor(profiles, judged.halfLives);
  return {
    /** undefined: nothing. */
    get statistics(): KeptStatistics | undefined {
      return statistics;
    },

    /** Requests have begun, or settings have changed. */
    renew(): void {
      const { current } = settings;
      if (announced === undefined) return;
      const known = current === judged ? profiles.size : -1;
      if (current !== judged) profiles = new Set([current.defaultProfile]);
      judged = current;
      for (const { profile } of requests.values()) profiles.add(profile);
      if (profiles.size !== known) statistics = statisticsFor(profiles, current.halfLives);
    },
  };
}

function statisticsFor(
  profiles: Iterable<Profile>,
  { attentionTokens, peakTokens }: HalfLives,
): KeptStatistics | undefined {
  const needed = new Set<Statistic>();
  for (const { merge, definition, parameters } of profiles) {
    if (!merge) continue;
    for (const probed of [false, true]) {
      for (const statistic of keptStatistics(definition.keep?.(parameters, probed) ?? [])) needed.add(statistic);
    }
  }
  if (needed.size === 0) return undefined;
  return {
    statistics: [...needed].sort((a, b) => a - b),
    attentionHalfLifeTokens: attentionTokens,
    peakHalfLifeTokens: peakTokens,
  };
}
