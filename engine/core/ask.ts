import { type Merge, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { StepModel } from '../model/step-model.ts';
import type { BlockPool } from './block-pool.ts';
import type { Sequence } from './sequence.ts';

/**
 * Before a merge that goes by what answers read: asks the queries of the request's newest probe again, if the merge could
 * let a token go that they were not asked of.
 */
export function askAgain(sequence: Sequence, merge: Merge, pool: BlockPool, model: Pick<StepModel, 'ask'>): void {
  const { queries, computed, promptTokens, blocks } = sequence;
  if (queries === undefined || !goesByAnswers(merge)) return;
  const end = (Math.max(...merge.into, ...merge.from) + 1) * pool.blockSize;
  if (end > queries.askedUpTo) model.ask(queries, blocks, computed, Math.floor(promptTokens / pool.blockSize));
}

const goesByAnswers = ({ rule }: Merge): boolean =>
  rule?.stages.some(({ terms }) => terms.some(({ statistic }) => statistic === Statistic.STATISTIC_ANSWER)) ?? false;
