import { setImmediate as yieldToOthers } from 'node:timers/promises';
import { grown } from '../grown.ts';
import type { Rows } from './sample.ts';

/** Milliseconds after which other work gets its turn. */
const TURN_MS = 4;
/** Groups that are tried after the first: the best of those tried alone. */
const CANDIDATES = 48;

export interface Choice {
  /** Ascending. */
  groups: number[];
  /** How well these groups, and all groups together, predict reads: area under the ROC curve. */
  quality: number;
  qualityOfAll: number;
}

export interface ChooseOptions {
  /** The most head groups to choose. */
  groups: number;
  /** Weight of attention in probed answers, as in the policy. */
  answerWeight: number;
}

/**
 * The few head groups that predict best which blocks a later step reads, so that doing without the others costs least.
 * Greedy: the best one, then whichever adds most to it, and so on. A block's value is what the policy crystal would
 * make of these groups alone. undefined: no block was read later, or all were.
 */
export async function chooseGroups(samples: readonly Rows[], options: ChooseOptions): Promise<Choice | undefined> {
  const evaluation = new Evaluation(samples, options.answerWeight);
  if (!evaluation.tells) return undefined;
  const { groups } = samples[0]!;
  const everyGroup = Array.from({ length: groups }, (_, group) => group);
  const qualityOfAll = evaluation.with(everyGroup);
  let began = performance.now();
  const chosen: number[] = [];
  let candidates = everyGroup;
  let quality = 0;
  while (chosen.length < Math.min(options.groups, groups)) {
    const tried: { group: number; quality: number }[] = [];
    for (const group of candidates) {
      tried.push({ group, quality: evaluation.with([...chosen, group]) });
      if (performance.now() - began < TURN_MS) continue;
      await yieldToOthers();
      began = performance.now();
    }
    tried.sort((a, b) => b.quality - a.quality || a.group - b.group);
    const best = tried[0]!;
    chosen.push(best.group);
    quality = best.quality;
    candidates = tried.slice(1, CANDIDATES).map(({ group }) => group);
  }
  return { groups: chosen.sort((a, b) => a - b), quality, qualityOfAll };
}

class Evaluation {
  readonly #samples: readonly Rows[];
  readonly #answerWeight: number;
  #read = new Float64Array(64);
  #unread = new Float64Array(64);

  constructor(samples: readonly Rows[], answerWeight: number) {
    this.#samples = samples;
    this.#answerWeight = answerWeight;
  }

  /** Whether some snapshot has both blocks that were read later and blocks that were not. */
  get tells(): boolean {
    return this.#samples.some(({ snapshots, read }) =>
      snapshots.some((from, i) => {
        const kinds = new Set(read.subarray(from, snapshots[i + 1] ?? from));
        return kinds.size === 2;
      }),
    );
  }

  /**
   * Of all pairs of a block that was read later and one that was not, in the same snapshot: the share in the right
   * order.
   */
  with(groups: readonly number[]): number {
    let right = 0;
    let pairs = 0;
    for (const { groups: width, snapshots, history, probed, read } of this.#samples) {
      for (let snapshot = 0; snapshot + 1 < snapshots.length; snapshot += 1) {
        const to = snapshots[snapshot + 1]!;
        let reads = 0;
        let others = 0;
        this.#reserve(to - snapshots[snapshot]!);
        for (let row = snapshots[snapshot]!; row < to; row += 1) {
          let sum = 0;
          let most = 0;
          for (const group of groups) {
            sum += history[row * width + group]!;
            most = Math.max(most, probed[row * width + group]!);
          }
          const value = sum / groups.length + this.#answerWeight * most;
          if (read[row] === 1) this.#read[reads++] = value;
          else this.#unread[others++] = value;
        }
        if (reads === 0 || others === 0) continue;
        pairs += reads * others;
        right += ordered(this.#read.subarray(0, reads).sort(), this.#unread.subarray(0, others).sort());
      }
    }
    return pairs === 0 ? 0 : right / pairs;
  }

  #reserve(rows: number): void {
    this.#read = grown(this.#read, rows);
    this.#unread = grown(this.#unread, rows);
  }
}

/** Pairs in which the number of `high` is above that of `low`, both ascending; equal ones count half. */
function ordered(high: Float64Array, low: Float64Array): number {
  let pairs = 0;
  let below = 0;
  let upTo = 0;
  for (const value of high) {
    while (below < low.length && low[below]! < value) below += 1;
    upTo = Math.max(upTo, below);
    while (upTo < low.length && low[upTo]! <= value) upTo += 1;
    pairs += (below + upTo) / 2;
  }
  return pairs;
}
