import { type Sample, total } from '../../scripts/metrics/text.ts';
import type { KeyName } from './keys.ts';

/** What the load generator knows of a key. */
export interface KeyTally {
  /** Requests that its limits refused. */
  limited: number;
  /** What its requests must and may have taken; the same unless something had to be estimated. */
  tokens: { least: number; most: number };
}

export const emptyKeyTally = (): KeyTally => ({ limited: 0, tokens: { least: 0, most: 0 } });

const NAME = { limited: 'crystalkv_gateway_limited_total', tokens: 'crystalkv_gateway_tokens_total' } as const;

export const tokensOfKey = (samples: readonly Sample[], key: KeyName): number => total(samples, NAME.tokens, { key });

/** Where the gateway's metrics and the tally of keys disagree; one line each. */
export function keyDisagreements(tallies: ReadonlyMap<KeyName, KeyTally>, samples: readonly Sample[]): string[] {
  const problems: string[] = [];
  for (const [key, { limited, tokens }] of tallies) {
    const refused = total(samples, NAME.limited, { key });
    if (refused !== limited) {
      problems.push(`key ${key}: the gateway counted ${refused} refusals by limits, the load generator ${limited}`);
    }
    const counted = tokensOfKey(samples, key);
    if (counted < tokens.least || counted > tokens.most) {
      const range = tokens.least === tokens.most ? `${tokens.least}` : `${tokens.least} to ${tokens.most}`;
      problems.push(`key ${key}: the gateway counted ${counted} tokens, the load generator ${range}`);
    }
  }
  return problems;
}
