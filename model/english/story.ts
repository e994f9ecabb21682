import type { Message } from '../program.ts';
import { createRandom, type Random } from '../random.ts';
import { type Person, type Plan, planStory, type Role } from './plan.ts';
import { type NumberedPiece, numbered, type Piece, thinkAloud } from './thinking.ts';

/** A person asked for. `last` is the last person of the story; a hub or cold person is called that first. */
export interface Question {
  readonly name: string;
  readonly count: number;
  readonly class: 'cold' | 'hub' | 'last' | 'other';
}

/** A story in words. */
export interface Story {
  /** What to send. */
  readonly messages: readonly Message[];
  /** User message. */
  readonly prompt: string;
  /** Text between `<think>` and `</think>`, without the line ends beside them. */
  readonly reasoning: string;
  /** Text after `</think>`, without the line ends before it. */
  readonly answer: string;
  /** All that the model writes, `reasoning`, `THINK_END` and `answer`, cut by what the pieces are for. */
  readonly pieces: readonly NumberedPiece[];
  readonly questions: readonly Question[];
  readonly people: readonly { readonly name: string; readonly count: number; readonly role: Role }[];
}

/** Between thinking and answer. The chat template writes `<think>` and a line end before the thinking. */
export const THINK_END = '\n</think>\n\n';

/**
 * With this the model takes its thinking as done, whatever is missing. After `THINK_END` alone it goes on thinking: it never
 * saw that before everyone was counted.
 */
export const STOP_THINKING = `\nThat was everyone.${THINK_END}`;

/**
 * Draws a story and writes it down with its reasoning and answer.
 *
 * @param random a stream, or a seed to start one.
 * @param people number of people, 1 to `MOST_PEOPLE`.
 * @throws {RangeError} naming option, value and bounds, if an argument is out of bounds.
 */
export function makeStory(random: Random | number, people: number): Story {
  const stream = typeof random === 'number' ? createRandom(random) : random;
  const plan = planStory(stream, people);
  const asked = plan.asked.map((index) => plan.people[index]!);
  const prompt = [...plan.people.map((person) => statement(person, plan)), question(asked, plan)].join(' ');
  const thinking = thinkAloud(stream, plan);
  const answer = asked.flatMap(({ name, count }, index): Piece[] => [
    ['answer-name', index === 0 ? name : `; ${name}`],
    ['words', ':'],
    ['answer-count', ` ${count}`],
  ]);
  const pieces: Piece[] = [...thinking, ['think-end', THINK_END], ...answer];
  return {
    messages: [{ role: 'user', content: prompt }],
    prompt,
    reasoning: joined(thinking),
    answer: joined(answer),
    pieces: numbered(pieces),
    questions: asked.map((person) => ({
      name: person.name,
      count: person.count,
      class: person.role !== 'ordinary' ? person.role : person === plan.people.at(-1) ? 'last' : 'other',
    })),
    people: plan.people.map(({ name, count, role }) => ({ name, count, role })),
  };
}

const joined = (pieces: readonly Piece[]): string => pieces.map(([, text]) => text).join('');

function statement({ name, count, relation }: Person, { people, item }: Plan): string {
  if (relation.type === 'given') return `${name} has ${count} ${item}.`;
  const names = relation.of.map((index) => people[index]!.name);
  if (relation.type === 'together') return `${name} has as many ${item} as ${names[0]} and ${names[1]} together.`;
  return `${name} has ${relation.by} ${relation.type} ${item} than ${names[0]}.`;
}

function question(asked: readonly Person[], { item }: Plan): string {
  const names = asked.map(({ name }) => name);
  const list = names.length === 1 ? names[0] : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
  return `How many ${item} do ${list} have?`;
}
