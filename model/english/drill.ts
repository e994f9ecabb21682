import type { Message } from '../program.ts';
import type { Random } from '../random.ts';
import { DIFFERENCE, MOST_COUNT } from './plan.ts';
import { THINK_END } from './story.ts';
import { type NumberedPiece, numbered, type Piece } from './thinking.ts';

/** So many take about 2,200 tokens. */
export const MOST_SUMS = 200;

/** Sums of the kinds that stories hold, and nothing else: a story has one in about 50 tokens, this one in 11. */
export interface Drill {
  readonly messages: readonly Message[];
  readonly prompt: string;
  readonly pieces: readonly NumberedPiece[];
}

/** Share of the sums with two numbers of any size, as where a person has as many as two others together. */
const TOGETHER_SHARE = 0.35;

/** Draws `count` sums. */
export function makeDrill(random: Random, count: number): Drill {
  const sums = Array.from({ length: count }, () => drawSum(random));
  const pieces: Piece[] = sums.flatMap(([sum, result], index): Piece[] => [
    ['free', index === 0 ? sum : ` ${sum}`],
    ['words', ' ='],
    ['result', ` ${result}`],
    ['words', '.'],
  ]);
  const prompt = `Do ${count} sums.`;
  return {
    messages: [{ role: 'user', content: prompt }],
    prompt,
    pieces: numbered([...pieces, ['think-end', THINK_END], ['words', 'Done.']]),
  };
}

function drawSum(random: Random): [sum: string, result: number] {
  const result = random.integer(1, MOST_COUNT);
  if (result > 1 && random.fraction() < TOGETHER_SHARE) {
    const first = random.integer(1, result - 1);
    return [`${first} + ${result - first}`, result];
  }
  const by = random.integer(...DIFFERENCE);
  if (result > by && (result + by > MOST_COUNT || random.fraction() < 0.5)) return [`${result - by} + ${by}`, result];
  return [`${result + by} - ${by}`, result];
}
