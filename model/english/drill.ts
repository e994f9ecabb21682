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

/** Shares of the kinds; the rest are differences. */
const SHARES = { more: 0.4, together: 0.2 };

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
  const share = random.fraction();
  if (share < SHARES.more) {
    const by = random.integer(...DIFFERENCE);
    const count = random.integer(1, MOST_COUNT - by);
    return [`${count} + ${by}`, count + by];
  }
  if (share < SHARES.more + SHARES.together) {
    const small = random.integer(1, DIFFERENCE[1]);
    const large = random.integer(small, MOST_COUNT - small);
    return [random.fraction() < 0.5 ? `${small} + ${large}` : `${large} + ${small}`, small + large];
  }
  const by = random.integer(...DIFFERENCE);
  const count = random.integer(by + 1, MOST_COUNT);
  return [`${count} - ${by}`, count - by];
}
