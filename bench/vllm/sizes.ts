import type { Form } from '../../model/form.ts';
import { answerTokenLimit } from '../workload.ts';

/** How much is measured. */
export interface Sizes {
  /** Form of all programs. */
  form: Form;
  /** Lines of all programs except for `saving`'s. */
  lines: number;
  ample: { requests: number; tokens: number; poolBlocks: number; rounds: number; every: readonly number[] };
  tight: { requests: number; tokens: number; rounds: number };
  /** Both for `tight` and `goodput` with crystal-mini. */
  tightPoolBlocks: number;
  goodput: { programs: number; maxTokens: number; memoryShare: number; rounds: number };
  saving: { programs: number; budgetTokens: number; lengths: readonly { tokens: number; lines: number }[] };
  /** Chats in turns; a turn generates thinking and an answer, of which only the answer goes into the next prompt. */
  chats: {
    chats: number;
    turns: number;
    concurrency: number;
    userTokens: number;
    thinkingTokens: number;
    answerTokens: number;
    poolBlocks: number;
    rounds: number;
  };
  big: { requests: number; tokens: number; promptTokens: number; poolBlocks: number };
}

/**
 * `lines` of a length: the most whose thinking and answer fit in the tokens, up to the 40 that the model solves with a
 * whole cache; what is left of the tokens goes on after the end of the sequence.
 */
const LENGTHS = {
  plain: [
    { tokens: 256, lines: 14 },
    { tokens: 512, lines: 29 },
    { tokens: 1024, lines: 40 },
    { tokens: 1400, lines: 40 },
  ],
  verbose: [
    { tokens: 256, lines: 6 },
    { tokens: 512, lines: 13 },
    { tokens: 1024, lines: 27 },
    { tokens: 1400, lines: 37 },
  ],
} as const;

const TURN = { userTokens: 48, thinkingTokens: 224, answerTokens: 32 } as const;

export const FULL: Sizes = {
  form: 'plain',
  lines: 40,
  ample: { requests: 48, tokens: 384, poolBlocks: 2048, rounds: 3, every: [1, 4, 16] },
  tight: { requests: 48, tokens: 1400, rounds: 1 },
  tightPoolBlocks: 120,
  goodput: { programs: 26, maxTokens: 960, memoryShare: 1 / 3, rounds: 2 },
  saving: { programs: 8, budgetTokens: 256, lengths: LENGTHS.plain },
  chats: { ...TURN, chats: 24, turns: 5, concurrency: 4, poolBlocks: 250, rounds: 3 },
  big: { requests: 6, tokens: 1000, promptTokens: 64, poolBlocks: 72 },
};

export const QUICK: Sizes = {
  form: 'plain',
  lines: 24,
  ample: { requests: 8, tokens: 64, poolBlocks: 2048, rounds: 1, every: [1, 4] },
  tight: { requests: 8, tokens: 700, rounds: 1 },
  tightPoolBlocks: 72,
  goodput: { programs: 8, maxTokens: 600, memoryShare: 1 / 3, rounds: 1 },
  saving: { programs: 2, budgetTokens: 128, lengths: LENGTHS.plain.slice(0, 2) },
  chats: { ...TURN, chats: 6, turns: 3, concurrency: 2, poolBlocks: 50, rounds: 1 },
  big: { requests: 4, tokens: 48, promptTokens: 64, poolBlocks: 40 },
};

/** The same sizes for programs in the verbose form, which need longer answers or have fewer lines. */
export function verboseSizes(sizes: Sizes): Sizes {
  const { lines, goodput, saving } = sizes;
  return {
    ...sizes,
    form: 'verbose',
    goodput: { ...goodput, maxTokens: answerTokenLimit(lines, 'verbose') },
    saving: { ...saving, lengths: LENGTHS.verbose.slice(0, saving.lengths.length) },
  };
}
