import { countExact, generatedTokens, type Round } from '../rounds.ts';
import { mean, round, wilson } from '../statistics.ts';
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

/**
 * The difference to the full cache on the same programs, with a lower 95 % bound that errs on the safe side: the most
 * that may have been lost less the least that may have been gained, both by Wilson's interval.
 */
function paired(it: Round, full: Round): { to_full: number; to_full_low: number } {
  const pairs = it.answers.map((answer, i) => Number(answer.exact) - Number(full.answers[i]?.exact ?? false));
  const lost = pairs.filter((difference) => difference < 0).length;
  const gained = pairs.filter((difference) => difference > 0).length;
  const low = wilson(gained, pairs.length).low - wilson(lost, pairs.length).high;
  return { to_full: round((gained - lost) / pairs.length), to_full_low: round(low) };
}
