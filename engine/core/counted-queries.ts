import type { Configure } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { CountedChunk } from '../model/step-model.ts';
import type { StatisticsOptions } from '../model/token-statistics.ts';
import type { Sequence } from './sequence.ts';

/**
 * Which queries of a sequence count in the statistics of tokens. Of a request: those after its prompt, for its output.
 * Of an answer probe: those of the end of thinking and of the answer, for the blocks that it shares with its request.
 */
export function countedQueries(sequence: Sequence, blockSize: number): CountedChunk | undefined {
  const { fork, promptTokens, request } = sequence;
  if (request.cache.mode === 'off') return undefined;
  if (fork === undefined) {
    return {
      position: promptTokens,
      from: Math.floor(promptTokens / blockSize),
      to: Number.POSITIVE_INFINITY,
      probe: false,
    };
  }
  const { parent, sharedTokens, ownFrom } = fork;
  return {
    position: ownFrom,
    from: Math.floor(parent.promptTokens / blockSize),
    to: Math.floor(sharedTokens / blockSize),
    probe: true,
  };
}

/** The statistics that the policy service wants to be kept. */
export function statisticsOf({ statistics }: Configure): StatisticsOptions | undefined {
  if (statistics === undefined || statistics.statistics.length === 0) return undefined;
  const { attentionHalfLifeTokens, peakHalfLifeTokens } = statistics;
  const halfLife = (tokens: number) => (tokens > 0 ? tokens : Number.POSITIVE_INFINITY);
  return {
    statistics: new Set(statistics.statistics),
    attentionHalfLifeTokens: halfLife(attentionHalfLifeTokens),
    peakHalfLifeTokens: halfLife(peakHalfLifeTokens),
  };
}
