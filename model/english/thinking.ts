import type { Random } from '../random.ts';
import type { Person, Plan } from './plan.ts';
import { CHECKS, CLOSING, OPENING, RECALLS, SMALL_TALK, TURNS } from './words.ts';

/** What a piece of the completion is for. A piece's kind is sent as its index in this list. */
export const PIECE_KINDS = [
  'free', // could as well be another phrase, or none
  'words', // clear from what stands before them
  'person', // name of the person whose turn it is, in the order of the prompt
  'reference', // name of a person whose count is used
  'lookup', // count of such a person: stands only in the thinking
  'operand', // number that the prompt gives
  'result', // count that a sum gives
  'restated', // numbers that stand in the same line already
  'think-end',
  'answer-name',
  'answer-count', // stands only in the thinking
] as const;
export type PieceKind = (typeof PIECE_KINDS)[number];

export type Piece = readonly [kind: PieceKind, text: string];
/** A piece with its kind as an index in `PIECE_KINDS`. */
export type NumberedPiece = readonly [kind: number, text: string];

export const numbered = (pieces: readonly Piece[]): NumberedPiece[] =>
  pieces.map(([kind, text]) => [PIECE_KINDS.indexOf(kind), text]);

/** Shares of the people after whom there is small talk, and whose sum is checked, if there is one. */
const TALK_SHARE = 0.5;
const CHECK_SHARE = 0.25;

/** The thinking about a story: one line for each person. */
export function thinkAloud(random: Random, plan: Plan): Piece[] {
  return [['words', `${OPENING}\n`], ...plan.people.flatMap((person) => line(random, person, plan)), ['free', CLOSING]];
}

function line(random: Random, person: Person, plan: Plan): Piece[] {
  const { name, count } = person;
  const [before, after] = random.pick(TURNS);
  const { steps, check } = reasoning(random, person, plan);
  const pieces: Piece[] = [
    ['free', before],
    ['person', ` ${name}`],
    ['words', after],
    ...steps,
    ['words', ` So ${name} has`],
    ['restated', ` ${count}`],
    ['words', '.'],
  ];
  if (check !== undefined && random.fraction() < CHECK_SHARE) {
    const [opens, closes] = random.pick(CHECKS);
    pieces.push(['free', opens], ['restated', ` ${check}`], ['words', closes]);
  }
  if (random.fraction() < TALK_SHARE) pieces.push(['free', random.pick(SMALL_TALK)]);
  return [...pieces, ['free', '\n']];
}

interface Reasoning {
  readonly steps: Piece[];
  /** The sum the other way round; undefined where nothing is added. */
  readonly check: string | undefined;
}

function reasoning(random: Random, { name, count, relation }: Person, { people, item }: Plan): Reasoning {
  if (relation.type === 'given') {
    const steps: Piece[] = [
      ['words', ` The problem says ${name} has`],
      ['operand', ` ${count}`],
      ['words', ` ${item}.`],
    ];
    return { steps, check: undefined };
  }
  if (relation.type === 'together') {
    const [first, second] = relation.of.map((index) => people[index]!) as [Person, Person];
    return {
      steps: [
        ['words', ` ${name} has as many as`],
        ['reference', ` ${first.name}`],
        ['words', ' and'],
        ['reference', ` ${second.name}`],
        ['words', ' together.'],
        ...recall(random, first, 'sentence'),
        ['words', ', and'],
        ...recall(random, second, 'clause'),
        ['words', '.'],
        ['restated', ` ${first.count} + ${second.count}`],
        ['words', ' ='],
        ['result', ` ${count}`],
        ['words', '.'],
      ],
      check: `${count} - ${second.count} = ${first.count}`,
    };
  }
  const first = people[relation.of[0]]!;
  const [sign, opposite] = relation.type === 'more' ? ['+', '-'] : ['-', '+'];
  return {
    steps: [
      ['words', ` ${name} has`],
      ['operand', ` ${relation.by}`],
      ['words', ` ${relation.type} than`],
      ['reference', ` ${first.name}`],
      ['words', '.'],
      ...recall(random, first, 'sentence'),
      ['words', ', and'],
      ['restated', ` ${first.count} ${sign} ${relation.by}`],
      ['words', ' ='],
      ['result', ` ${count}`],
      ['words', '.'],
    ],
    check: `${count} ${opposite} ${relation.by} = ${first.count}`,
  };
}

function recall(random: Random, { name, count }: Person, position: 'sentence' | 'clause'): Piece[] {
  const { type, opens, between } = random.pick(RECALLS);
  if (type === 'count-first') {
    const opening = position === 'sentence' ? capitalised(opens) : opens;
    return [
      ['free', ` ${opening}`],
      ['lookup', ` ${count}`],
      ['words', between],
      ['reference', ` ${name}`],
    ];
  }
  // Without an opening, the name itself is what could as well be another phrase.
  const opening: Piece[] =
    opens === ''
      ? [['free', ` ${name}${between}`]]
      : [
          ['free', ` ${position === 'sentence' ? capitalised(opens) : opens}`],
          ['reference', ` ${name}`],
          ['words', between],
        ];
  return [...opening, ['lookup', ` ${count}`]];
}

const capitalised = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
