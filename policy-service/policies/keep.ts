import { SCALES, type ScaleName, STATISTICS, type StatisticName } from '../../common/protocol.ts';
import { type KeepRule, Scale, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';

/** A part of a token's value: a figure of it, weighed. */
export interface KeepTerm {
  statistic: StatisticName;
  /** Default: 1. */
  weight?: number;
  /** Default: the figure as it is. */
  scale?: ScaleName;
  /** Each token takes the highest figure within a window of so many, an odd number. Default: its own. */
  pool?: number;
}

/** Fills a share of the room with the tokens that it values most. */
export interface KeepStage {
  /** Of the room, in (0, 1]; the last stage fills what is left. */
  share?: number;
  terms: readonly KeepTerm[];
  /** Drawn in proportion to the values instead of the highest ones. */
  sampled?: boolean;
}

/**
 * How a policy values tokens when an engine merges blocks: the stages fill the room of each layer and KV head one after
 * the other. What the words mean is in the contract (`Statistic`, `KeepRule`).
 */
export type KeepStages = readonly KeepStage[];

/** The half of each rank that two figures have: both count alike, whatever their size. */
export const halves = (a: StatisticName, b: StatisticName): KeepTerm[] => [
  { statistic: a, weight: 0.5, scale: 'rank' },
  { statistic: b, weight: 0.5, scale: 'rank' },
];

/** The statistics that an engine has to keep so that the stages mean something. */
export function keptStatistics(stages: KeepStages): Statistic[] {
  const used = new Set(stages.flatMap(({ terms }) => terms.map(({ statistic }) => STATISTICS.values[statistic])));
  return [...used].filter((statistic) => statistic < Statistic.STATISTIC_DISTINCT_KEYS).sort((a, b) => a - b);
}

/** Whether an engine that announced these statistics can follow the stages. */
export function canFollow(stages: KeepStages, announced: ReadonlySet<Statistic>): boolean {
  return stages.every(({ terms }) => terms.every(({ statistic }) => announced.has(STATISTICS.values[statistic])));
}

/** The stages as an engine gets them. */
export function keepRule(stages: KeepStages, seed: number): KeepRule {
  return {
    stages: stages.map(({ share = 1, terms, sampled = false }) => ({
      share,
      sampled,
      terms: terms.map(({ statistic, weight = 1, scale, pool = 0 }) => ({
        statistic: STATISTICS.values[statistic],
        weight,
        scale: scale === undefined ? Scale.SCALE_UNSPECIFIED : SCALES.values[scale],
        pool,
      })),
    })),
    seed,
  };
}
