import { countExact, generatedTokens, type Round } from '../rounds.ts';
import { mean, pairedLow, round, wilson } from '../statistics.ts';
import { CLASSES, rightShare } from './classes.ts';
import type { Setting } from './setting.ts';

/** One candidate in one setting. `share` and `budget` are undefined for the full cache. */
export interface Row {
  setting: Setting;
  key: string;
  title: string;
  share: number | undefined;
  budget: number | undefined;
  round: Round;
}

export type Details = ReturnType<typeof details>;

/** Everything that is said of a row; `full` is the full cache on the same programs. */
export function details({ setting, key, title, share, budget, round: it }: Row, full: Row) {
  const { answers, memory } = it;
  const exact = countExact(answers);
  const interval = wilson(exact, answers.length);
  const over = budget === undefined ? 0 : memory.peakOutputBlocks.filter((peak) => peak > budget).length;
  const classes = CLASSES.map((of) => [`right_${of}`, round(rightShare(answers, of) ?? 0)]);
  return {
    part: setting.part,
    form: setting.form,
    lines: setting.lines,
    block_size: setting.blockSize,
    programs: answers.length,
    key,
    title,
    share: share ?? 1,
    budget_blocks: budget ?? null,
    exact: round(exact / answers.length),
    exact_low: round(interval.low),
    exact_high: round(interval.high),
    ...paired(it, full.round),
    ...(Object.fromEntries(classes) as Record<`right_${(typeof CLASSES)[number]}`, number>),
    length_ratio: round(generatedTokens(answers) / generatedTokens(full.round.answers)),
    unended_share: round(answers.filter((answer) => !answer.thinkingEnded).length / answers.length),
    extra_tokens_share: round(it.probeTokens / generatedTokens(answers)),
    mean_blocks: round(memory.meanOutputBlocks, 2),
    peak_blocks: Math.max(...memory.peakOutputBlocks),
    mean_peak_blocks: round(mean(memory.peakOutputBlocks), 2),
    over_budget_share: round(over / memory.peakOutputBlocks.length),
    evicted_blocks: it.evictedBlocks,
    preemptions: it.preemptions,
    missed_steps: it.missedSteps,
    seconds: round(it.seconds, 1),
  };
}

/** The difference to the full cache on the same programs, and the lower end of its 95 % interval. */
function paired(it: Round, full: Round): { to_full: number; to_full_low: number } {
  const own = it.answers.map(({ exact }) => exact);
  const whole = full.answers.map(({ exact }) => exact);
  return { to_full: round((count(own) - count(whole)) / own.length), to_full_low: round(pairedLow(own, whole)) };
}

const count = (values: readonly boolean[]) => values.filter(Boolean).length;
