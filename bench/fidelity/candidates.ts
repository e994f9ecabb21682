import { type Candidate, CRYSTAL } from '../eval/candidates.ts';

/** The full cache once more: what differs between two runs that evict nothing. */
export const FULL: Candidate = { key: 'full', title: 'full cache, again', profile: { policy: 'full' } };

/** What every rule has to be better than: prompt and newest tokens, and prompt and tokens drawn anew each time. */
export const NULLS: readonly Candidate[] = [
  { key: 'window', title: 'newest tokens', profile: { policy: 'window', merge: true } },
  { key: 'random', title: 'random tokens, drawn anew', profile: { policy: 'random', merge: true } },
];

/** Published rules at token level: each layer and KV head keeps its own. */
export const PUBLISHED: readonly Candidate[] = [
  { key: 'h2o', title: 'h2o', profile: { policy: 'h2o', merge: true } },
  { key: 'tova', title: 'tova', profile: { policy: 'tova', merge: true } },
  { key: 'snapkv', title: 'snapkv', profile: { policy: 'snapkv', merge: true } },
  { key: 'rkv_1', title: 'R-KV, lambda .1', profile: { policy: 'rkv', rkv_lambda: 0.1, merge: true } },
  { key: 'rkv_5', title: 'R-KV, lambda .5', profile: { policy: 'rkv', rkv_lambda: 0.5, merge: true } },
  { key: 'vase', title: 'VaSE', profile: { policy: 'vase', merge: true } },
  { key: 'keydiff', title: 'KeyDiff', profile: { policy: 'keydiff', merge: true } },
];

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
