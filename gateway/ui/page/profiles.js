import { element } from './dom.js';

/** What the product recommends, in the order of the list; whatever else a service offers is to compare with. */
const RECOMMENDED = ['crystal', 'default'];

/** Sentences for the profiles that come with the product, by name and policy. */
const SENTENCES = {
  'crystal crystal': 'Each layer and head keeps the tokens that it still reads. What nobody reads goes.',
  'default crystal': 'The same, but only while memory is short: with room to spare everything is kept.',
  'crystal-evict crystal':
    'Lets whole blocks of tokens go, by what trial answers and the reasoning read. It keeps less of the detail.',
  'half crystal': 'Keeps half of what was generated so far.',
  'adaptive crystal': 'Chooses by itself how much it can let go.',
  'shadow crystal':
    'Lets nothing go: it only watches what it would have let go, and how much of the attention that gets.',
};

/**
 * @typedef {object} Profile
 * @property {string} name
 * @property {string} policy
 * @property {string} mode
 */

/** @param {Profile} profile */
const isRecommended = ({ name, policy }) => RECOMMENDED.includes(name) && policy === 'crystal';

/**
 * The choices of the policy list, in two groups.
 *
 * @param {Profile[]} profiles
 */
export function profileOptions(profiles) {
  const option = (/** @type {Profile} */ { name }) => element('option', { value: name }, name);
  const ours = profiles.filter(isRecommended).sort((a, b) => RECOMMENDED.indexOf(a.name) - RECOMMENDED.indexOf(b.name));
  const others = profiles.filter((profile) => !isRecommended(profile));
  if (profiles.length === 0) return [element('option', { value: '' }, 'default')];
  return [
    ...(ours.length === 0 ? [] : [element('optgroup', { label: 'Recommended' }, ...ours.map(option))]),
    ...(others.length === 0 ? [] : [element('optgroup', { label: 'To compare with' }, ...others.map(option))]),
  ];
}

/**
 * What a choice does, in a sentence.
 *
 * @param {Profile | undefined} profile
 * @param {{ name: string, summary: string }[]} policies
 */
export function sentenceOf(profile, policies) {
  if (profile === undefined) return '';
  const own = SENTENCES[/** @type {keyof typeof SENTENCES} */ (`${profile.name} ${profile.policy}`)];
  const shadow =
    profile.mode === 'shadow' && own === undefined ? ' It lets nothing go, and only watches what it would let go.' : '';
  return `${own ?? policies.find(({ name }) => name === profile.policy)?.summary ?? ''}${shadow}`;
}

/**
 * Whether a budget changes anything.
 *
 * @param {Profile | undefined} profile
 */
export function takesBudget(profile) {
  return profile?.policy !== 'full' && profile?.mode !== 'off';
}
