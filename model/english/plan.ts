import { checkInteger, type Random } from '../random.ts';
import { ITEMS, NAMES } from './words.ts';

/** A story has at most this many people; the model is trained for up to 24. */
export const MOST_PEOPLE = NAMES.length;

/** How a person's count is given; `of` are indices of earlier people. */
export type Relation =
  | { readonly type: 'given' }
  | { readonly type: 'more' | 'fewer'; readonly of: readonly [number]; readonly by: number }
  | { readonly type: 'together'; readonly of: readonly [number, number] };

/**
 * What becomes of a count: a hub's is used again at any time, a cold one's by nothing but the answer, so that it is said
 * once; most others are used within the next three people.
 */
export type Role = 'hub' | 'cold' | 'ordinary';

/** A person of a story. */
export interface Person {
  readonly name: string;
  readonly count: number;
  readonly relation: Relation;
  readonly role: Role;
}

/** What a story says, without its words. */
export interface Plan {
  readonly item: string;
  readonly people: readonly Person[];
  /** Indices of the people asked for, in the order of the question. */
  readonly asked: readonly number[];
}

export const MOST_COUNT = 40;
const GIVEN = [5, 30] as const;
/** Small: a model of this size does sums of two large numbers wrong too often. */
export const DIFFERENCE = [2, 5] as const;
/** Index of the hub. */
const HUB = 0;
/** Share of the counts that are given; of the others, shares of the ways to give them; the rest is `together`. */
const SHARES = { given: 0.12, more: 0.43, fewer: 0.4 };
/** Shares of where a count's references come from: anyone earlier, the hub; the rest are the last three. */
const REFERENCES = { anyone: 0.25, hub: 0.2 };
const RECENT = 3;
const COLD = 3;
const ASKED = 4;
/** A relation that would leave the bounds is drawn again this often. */
const DRAWS = 30;

/**
 * Draws the people, their counts and the question. Stories of four people or more ask a cold person and the last one.
 *
 * @throws {RangeError} naming option, value and bounds, if there are fewer than 1 or more than `MOST_PEOPLE` people.
 */
export function planStory(random: Random, people: number): Plan {
  checkInteger('people', people, 1, MOST_PEOPLE);
  const item = random.pick(ITEMS);
  const names = random.shuffle(NAMES).slice(0, people);
  const cold = drawCold(random, people);
  const drawn: Person[] = [];
  for (const [index, name] of names.entries()) {
    const role = cold.includes(index) ? 'cold' : index === HUB ? 'hub' : 'ordinary';
    const candidates = drawn.flatMap((person, other) => (person.role === 'cold' ? [] : [other]));
    // A cold count that the prompt gives could be read there.
    const given = index === 0 || (role !== 'cold' && random.fraction() < SHARES.given);
    const drawing = given ? drawGiven(random) : drawRelation(random, drawReferences(random, candidates), drawn);
    drawn.push({ name, role, ...drawing });
  }
  return { item, people: drawn, asked: drawQuestion(random, people, cold) };
}

/** Cold people are in the first half, so that their counts are old when they are asked for. */
function drawCold(random: Random, people: number): number[] {
  const half = Math.floor(people / 2);
  const early = Array.from({ length: Math.max(0, half - 1) }, (_, index) => index + 1);
  return random.shuffle(early).slice(0, COLD);
}

function drawReferences(random: Random, candidates: readonly number[]): readonly number[] {
  const draw = random.fraction();
  if (draw < REFERENCES.anyone) return candidates;
  return draw < REFERENCES.anyone + REFERENCES.hub ? [HUB] : candidates.slice(-RECENT);
}

type Drawing = Pick<Person, 'count' | 'relation'>;

const drawGiven = (random: Random): Drawing => ({ count: random.integer(...GIVEN), relation: { type: 'given' } });

function drawRelation(random: Random, references: readonly number[], people: readonly Person[]): Drawing {
  for (let draw = 0; draw < DRAWS; draw++) {
    const share = random.fraction();
    const first = random.pick(references);
    const second = random.pick(references);
    const by = random.integer(...DIFFERENCE);
    const [count, other] = [people[first]!.count, people[second]!.count];
    if (share < SHARES.more) {
      if (count + by <= MOST_COUNT) return { count: count + by, relation: { type: 'more', of: [first], by } };
    } else if (share < SHARES.more + SHARES.fewer) {
      if (count - by >= 1) return { count: count - by, relation: { type: 'fewer', of: [first], by } };
    } else if (second !== first && count + other <= MOST_COUNT && Math.min(count, other) <= DIFFERENCE[1]) {
      return { count: count + other, relation: { type: 'together', of: [first, second] } };
    }
  }
  const first = references[0]!;
  const count = people[first]!.count;
  const by = DIFFERENCE[0];
  return count + by <= MOST_COUNT
    ? { count: count + by, relation: { type: 'more', of: [first], by } }
    : { count: count - by, relation: { type: 'fewer', of: [first], by } };
}

/** The last person, a cold one, and others, of which every second is cold as long as there are any. */
function drawQuestion(random: Random, people: number, cold: readonly number[]): number[] {
  const asked = new Set([...cold.slice(0, 1), people - 1]);
  const others = random.shuffle(Array.from({ length: people }, (_, index) => index));
  const spare = cold.slice(1);
  while (asked.size < Math.min(ASKED, people)) {
    const next = spare.length > 0 && random.fraction() < 0.5 ? spare.pop() : others.pop();
    if (next !== undefined) asked.add(next);
  }
  return random.shuffle([...asked]);
}
