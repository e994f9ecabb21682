/** People of the stories. */
export const NAMES: readonly string[] = [
  ...['Anna', 'Ben', 'Carla', 'David', 'Emma', 'Frank', 'Grace', 'Henry', 'Ivan', 'Julia', 'Kevin', 'Laura', 'Maria'],
  ...['Nathan', 'Olivia', 'Peter', 'Quinn', 'Rachel', 'Sarah', 'Thomas', 'Uma', 'Victor', 'Wendy', 'Xavier', 'Yuki'],
  ...[
    'Zoe',
    'Adam',
    'Beth',
    'Chris',
    'Diana',
    'Eric',
    'Fiona',
    'George',
    'Hannah',
    'Isaac',
    'Jack',
    'Kate',
    'Leo',
    'Mia',
  ],
  ...['Noah', 'Oscar', 'Paul', 'Rosa', 'Sam', 'Tara', 'Umar', 'Vera', 'Walter', 'Alice', 'Bruno', 'Clara', 'Derek'],
  ...['Elena', 'Felix', 'Gina', 'Hugo'],
];

/** What they have. */
export const ITEMS: readonly string[] = [
  ...['coins', 'marbles', 'books', 'stamps', 'apples', 'shells', 'cards', 'stickers', 'beads', 'pencils'],
];

/** How the thinking begins, and how it ends. */
export const OPENING = 'Okay, let me go through this step by step.';
export const CLOSING = 'That was everyone, so I can answer now.';

/** Turn to the next person, whose name stands between the two texts. */
export const TURNS: readonly (readonly [before: string, after: string])[] = [
  ['Next is', '.'],
  ['Now', '.'],
  ["Let's look at", '.'],
  ['Then there is', '.'],
  ['Okay,', ' now.'],
  ['On to', '.'],
  ['So what about', '?'],
];

/** Recall what was found for a person: a name and a count, in the order of the type, each after a text. */
export interface Recall {
  readonly type: 'name-first' | 'count-first';
  readonly opens: string;
  readonly between: string;
}
export const RECALLS: readonly Recall[] = [
  { type: 'name-first', opens: '', between: ' has' },
  { type: 'name-first', opens: 'I found that', between: ' has' },
  { type: 'name-first', opens: 'we know', between: ' has' },
  { type: 'count-first', opens: 'earlier I got', between: ' for' },
  { type: 'name-first', opens: '', between: "'s number is" },
];

/** Go over a sum again, which stands between the two texts. */
export const CHECKS: readonly (readonly [before: string, after: string])[] = [
  [' Let me double check:', '. That works.'],
  [' Checking:', ', which is right.'],
  [' Wait, is that right?', ', yes.'],
];

/** Say nothing. */
export const SMALL_TALK: readonly string[] = [
  ' So far this is just bookkeeping.',
  ' Okay.',
  ' Hmm, let me keep going.',
  ' That looks fine.',
  ' Good, one step further.',
  ' I should be careful with the numbers here.',
  ' Nothing strange so far.',
  ' Alright.',
];
