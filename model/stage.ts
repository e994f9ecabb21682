import { z } from 'zod';
import { type Form, MAX_LINES_OF } from './form.ts';
import type { ProgramOptions } from './plan.ts';
import { type Program, TOKEN_KINDS } from './program.ts';
import type { Random } from './random.ts';
import { makeRecall, type Sequence } from './recall.ts';
import { makeProgram } from './task.ts';
import { LINE_LABELS, lineToken, MAX_LINES } from './vocab.ts';

const NO_LOSS = TOKEN_KINDS.indexOf('prompt');

const lineBounds = (most: number) =>
  z
    .tuple([z.number().int().min(1).max(most), z.number().int().min(1).max(most)])
    .refine(([min, max]) => min <= max, 'the first bound must not exceed the second');
const share = z.number().min(0).max(1);

/** What the batches of a training stage hold. */
export const StageData = z.strictObject({
  /** A batch is filled with sequences until it holds at least this many tokens. */
  batchTokens: z.number().int().min(1).max(1_000_000),
  /** Bounds of the number of lines of a program; all programs of a batch have the same number. */
  programLines: lineBounds(MAX_LINES_OF.plain),
  /** Share of the batches that hold programs in the verbose form. */
  verboseShare: share.default(0),
  /** Bounds of the number of lines of a verbose program. */
  verboseLines: lineBounds(MAX_LINES_OF.verbose).default([3, 10]),
  /** Share of the batches that hold recall sequences instead of programs. */
  recallShare: share.default(0),
  /** Bounds of the number of definitions of a recall sequence. */
  recallLines: lineBounds(MAX_LINES).default([4, 24]),
  /** Share of the programs whose operands lie far back, with varied numbers of hubs, cold registers and queries. */
  farShare: share.default(0.5),
  /** Share of the programs whose thinking is cut short: the answer follows at a random place. */
  cutShare: share.default(0),
});
export type StageData = z.infer<typeof StageData>;

/** Draws one batch of sequences. */
export function makeBatch(random: Random, stage: StageData): Sequence[] {
  const recall = random.fraction() < stage.recallShare;
  // Nothing is drawn where there is no choice, so that stages without it keep their batches.
  const verbose = !recall && stage.verboseShare > 0 && random.fraction() < stage.verboseShare;
  const form = verbose ? 'verbose' : 'plain';
  const bounds = verbose ? stage.verboseLines : stage.programLines;
  const lines = random.integer(...(recall ? stage.recallLines : bounds));
  const sequences: Sequence[] = [];
  for (let tokens = 0; tokens < stage.batchTokens; tokens += sequences.at(-1)!.ids.length) {
    sequences.push(recall ? makeRecall(random, lines) : programSequence(random, lines, form, stage));
  }
  return sequences;
}

function programSequence(random: Random, lines: number, form: Form, { farShare, cutShare }: StageData): Sequence {
  const options = { form, ...(random.fraction() < farShare ? farOptions(random) : {}) };
  const program = makeProgram(random, lines, options);
  const { ids, kinds, lookups } = random.fraction() < cutShare ? cutShort(random, program) : program;
  const isLabel = (id: number) => id >= lineToken(1) && id <= lineToken(LINE_LABELS);
  const lineStarts = ids.flatMap((id, index) => (isLabel(id) ? [index] : [])).slice(1);
  return {
    ids,
    kinds,
    lineStarts,
    lookups: lookups.map(({ tokenIndex, earlierPositions }) => [tokenIndex, ...earlierPositions]),
  };
}

/**
 * The program with its thinking ended at a random place, and its answer after that. The end of thinking carries no loss
 * there, nor do values that were not found yet: an answer can be asked for at any time, and says what is known.
 */
function cutShort(random: Random, program: Program): Pick<Program, 'ids' | 'kinds' | 'lookups'> {
  const { ids, kinds, promptLength, thinkEnd } = program;
  const cut = random.integer(promptLength, thinkEnd);
  const shift = thinkEnd - cut;
  const kept = program.lookups.flatMap((lookup) => {
    const earlierPositions = lookup.earlierPositions.filter((position) => position < cut);
    if (lookup.tokenIndex < cut) return [{ ...lookup, earlierPositions }];
    return lookup.where === 'answer' ? [{ ...lookup, earlierPositions, tokenIndex: lookup.tokenIndex - shift }] : [];
  });
  const cutKinds = [...kinds.slice(0, cut), NO_LOSS, ...kinds.slice(thinkEnd + 1)];
  for (const { tokenIndex, earlierPositions, where } of kept) {
    if (where === 'answer' && earlierPositions.length === 0) cutKinds[tokenIndex] = NO_LOSS;
  }
  return { ids: [...ids.slice(0, cut), ...ids.slice(thinkEnd)], kinds: cutKinds, lookups: kept };
}

/** Between 20 and 80 % of the operands are any earlier register; 10 % stay literal digits. */
function farOptions(random: Random): ProgramOptions {
  const farShare = 0.2 + 0.6 * random.fraction();
  const nearShare = (0.9 - farShare) / 2;
  return {
    farShare,
    hubShare: nearShare,
    recentShare: nearShare,
    hubs: random.integer(1, 3),
    coldRegisters: random.integer(0, 4),
    queries: random.integer(1, 6),
  };
}
