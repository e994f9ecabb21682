import { type Interval, mean, pairedMean, round } from '../statistics.ts';
import type { Text } from './texts.ts';

/** What the model thought of each token of a text. */
export interface Thoughts {
  /** Divergence of the next token's distribution from the full cache's, in nats. */
  kl: readonly number[];
  /** The token that was the most likely one. */
  mostLikely: readonly number[];
}

/** How one text came out. */
export interface TextFidelity {
  /** Mean divergence in nats per token: of the thinking after the budget was exceeded, and of the answer. */
  thinking: number;
  /** NaN: the text has no answer. */
  answer: number;
  /** Share of both whose most likely token is the full cache's. */
  same: number;
  /** Facts that the full cache recalls, and how many of them came out right. */
  facts: number;
  recalled: number;
}

export interface Fidelity {
  perText: TextFidelity[];
  klThinking: Interval;
  klAnswer: Interval | undefined;
  sameMostLikely: number;
  facts: number;
  recalled: number;
}

/** The first generated token at which a text holds more output than its budget; from there on caches may differ. */
export function firstBeyond(promptTokens: number, budgetBlocks: number, blockSize: number): number {
  return (Math.ceil(promptTokens / blockSize) + budgetBlocks) * blockSize - promptTokens;
}

/** @throws {RangeError} when the thoughts are of another text, or its thinking never exceeds the budget. */
export function textFidelity(
  text: Text,
  full: Thoughts,
  other: Thoughts,
  budgetBlocks: number,
  blockSize: number,
): TextFidelity {
  const from = firstBeyond(text.prompt.length, budgetBlocks, blockSize);
  const { length } = text.tokens;
  for (const { kl } of [full, other]) {
    if (kl.length !== length) throw new RangeError(`a text has ${length} tokens, and thoughts of ${kl.length}`);
  }
  if (from >= text.thinking) {
    throw new RangeError(`a thinking of ${text.thinking} tokens stays within a budget of ${from}`);
  }
  const end = text.thinking + text.answer;
  const recalls = ({ mostLikely }: Thoughts) =>
    text.facts.map(({ from: first, to }) =>
      text.tokens.slice(first, to).every((it, i) => it === mostLikely[first + i]),
    );
  const [byFull, byOther] = [recalls(full), recalls(other)];
  return {
    thinking: mean(other.kl.slice(from, text.thinking)),
    answer: text.answer === 0 ? Number.NaN : mean(other.kl.slice(text.thinking, end)),
    same: mean(other.mostLikely.slice(from, end).map((token, i) => Number(token === full.mostLikely[from + i]))),
    facts: byFull.filter(Boolean).length,
    recalled: byFull.filter((right, i) => right && byOther[i]!).length,
  };
}

/** Means over texts, each of which weighs the same. At least 3 texts. */
export function fidelity(perText: TextFidelity[]): Fidelity {
  const answers = perText.map(({ answer }) => answer).filter((value) => !Number.isNaN(value));
  const sum = (of: (text: TextFidelity) => number) => perText.reduce((total, text) => total + of(text), 0);
  return {
    perText,
    klThinking: pairedMean(perText.map(({ thinking }) => thinking)),
    klAnswer: answers.length < 3 ? undefined : pairedMean(answers),
    sameMostLikely: mean(perText.map(({ same }) => same)),
    facts: sum(({ facts }) => facts),
    recalled: sum(({ recalled }) => recalled),
  };
}

/** `.123 (.100 to .146)` */
export const describe = ({ mean: middle, low, high }: Interval): string =>
  `${round(middle, 4).toFixed(4)} (${round(low, 4).toFixed(4)} to ${round(high, 4).toFixed(4)})`;
