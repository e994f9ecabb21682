import type { Logger } from '../../common/logger.ts';
import type { Metrics } from '../observe/metrics.ts';

/** Requests choose these names: so many are logged, once each, cut to this length. */
const MAX_NAMES = 100;
const MAX_LENGTH = 64;

/** Counts requests that name an unknown profile, and logs each of the first names once. */
export function createUnknownProfiles(metrics: Metrics, logger: Logger): (name: string) => void {
  const logged = new Set<string>();
  return (name) => {
    metrics.unknownProfiles.inc();
    if (logged.has(name) || logged.size >= MAX_NAMES) return;
    logged.add(name);
    logger.warn({ profile: name.slice(0, MAX_LENGTH) }, 'unknown profile; the default profile is used');
  };
}
