import { BASELINES, type Candidate, CRYSTAL } from '../eval/candidates.ts';

/** The full cache once more: what differs between two runs that evict nothing. */
export const FULL: Candidate = { key: 'full', title: 'full cache, again', profile: { policy: 'full' } };

const PUBLISHED = ['window', 'random', 'h2o', 'snapkv'];

/** The model has no end of thinking: without merging, `crystal` cannot probe either. */
export const CANDIDATES: readonly Candidate[] = [
  CRYSTAL,
  { key: 'crystal_evict', title: '`merge: false`, no probes', profile: { policy: 'crystal', merge: false } },
  ...BASELINES.filter(({ key }) => PUBLISHED.includes(key)),
];
