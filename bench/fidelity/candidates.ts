import { type Candidate, CRYSTAL } from '../eval/candidates.ts';
import { NULL_RULES, PUBLISHED_RULES, profileOf, type TokenRule } from '../token-rules.ts';

/** The full cache once more: what differs between two runs that evict nothing. */
export const FULL: Candidate = { key: 'full', title: 'full cache, again', profile: { policy: 'full' } };

/** The keys are in published figures. */
const candidate = (rule: TokenRule): Candidate => ({
  key: rule.lambda === undefined ? rule.policy : `${rule.policy}_${10 * rule.lambda}`,
  title: rule.lambda === undefined ? rule.name : `${rule.name}, lambda ${`${rule.lambda}`.replace(/^0/, '')}`,
  profile: profileOf(rule),
});

export const NULLS: readonly Candidate[] = NULL_RULES.map(candidate);
export const PUBLISHED: readonly Candidate[] = PUBLISHED_RULES.map(candidate);

/** The same set of blocks for all layers and heads. */
const BLOCKS: readonly Candidate[] = [
  { key: 'window_blocks', title: 'newest blocks', profile: { policy: 'window', merge: false } },
  { key: 'random_blocks', title: 'random blocks', profile: { policy: 'random', merge: false } },
  { key: 'crystal_blocks', title: '`crystal`, whole blocks', profile: { policy: 'crystal', merge: false } },
];

export const CANDIDATES: readonly Candidate[] = [CRYSTAL, ...NULLS, ...PUBLISHED, ...BLOCKS];

/** Variants of `crystal`, to choose its shares by; on other texts and seeds than any table. */
export const SWEEP: readonly Candidate[] = [0.3, 0.5, 0.7, 0.85, 1].map((share) => ({
  key: `attention_${share * 100}`,
  title: `crystal, ${share * 100} % by attention`,
  profile: { policy: 'crystal', crystal: { attention_share: share } },
}));
