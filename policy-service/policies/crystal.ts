import { h2oNorm } from './h2o-norm.ts';
import { halves, type KeepStage, type KeepStages } from './keep.ts';
import { FARTHEST_KEYS } from './keydiff.ts';
import type { PolicyDefinition, PolicyParameters } from './policy.ts';

/**
 * What is left of a block's value when its segment has a better one. Swept: 0.65 to 0.8 are alike, 0.2 is too little.
 */
const SECOND_SHARE = 0.75;

/**
 * Engines that can merge keep tokens, by `stages`. The values of blocks serve engines that cannot merge, profiles
 * without merging, and the order in which blocks are freed.
 *
 * Answer first: what a probed answer reads is worth `answerWeight` times its attention. What the answer does not ask
 * for may still be an operand of the reasoning, and is worth the attention that it receives on average since its birth.
 * Both are shares of a head group's attention: the most at one step of a probe, the mean over groups and steps.
 *
 * A step of the reasoning is rarely needed as a whole: the best block of a segment keeps its value, the others lose
 * some.
 */
export const crystal: PolicyDefinition = {
  summary:
    'Merges blocks: keeps the tokens that a probed answer reads, those that the reasoning reads, and those that nothing repeats. Where an engine cannot merge, the blocks that answer and reasoning read.',
  source: 'this project, after Crystal-KV, arXiv 2601.16986',
  evicts: true,
  hits: 'none',
  mass: true,
  merges: true,
  needsProbe: true,
  comparison: { weight: 'value' },
  keep: stages,
  // of the rules that need no statistics, this one was measured to lose least
  keepUnmeasured: FARTHEST_KEYS,
  create: (parameters) => {
    const { answerWeight, segments: thins, recurrence } = parameters;
    const history = h2oNorm.create(parameters);
    return {
      admit: (block, tokens) => history.admit?.(block, tokens),
      observe: (measurement) => history.observe?.(measurement),
      score(blocks, count, request, out) {
        if (recurrence) history.score(blocks, count, request, out);
        else out.fill(0, 0, count);
        const { probe, segments } = request;
        for (let i = 0; i < count; i += 1) {
          if (blocks[i]! < probe.seen) out[i]! += answerWeight * probe.masses[blocks[i]!]!;
        }
        if (thins && segments !== undefined) thin(blocks, count, segments, out);
      },
    };
  },
};

/**
 * Most of the room goes by attention, the rest to what was once read hard and is repeated by nothing: history alone
 * loses what was said once, distinctness alone loses what is in use. What an answer would read now comes before both;
 * without a probe its share goes by attention.
 */
function stages({ answerShare, attentionShare }: PolicyParameters, probed: boolean): KeepStages {
  const answer = probed ? answerShare : 0;
  const read: KeepStage[] = [
    { share: answer, terms: [{ statistic: 'answer' }] },
    { share: Math.max(0, attentionShare - answer), terms: [{ statistic: 'attention' }] },
  ];
  return [...read.filter(({ share = 0 }) => share > 0), { terms: halves('peak', 'distinct_keys') }];
}

/** Blocks of one segment are neighbours in `blocks`: the first with the highest value keeps it. */
function thin(blocks: Int32Array, count: number, segments: Int32Array, out: Float64Array): void {
  let best = 0;
  for (let i = 1; i < count; i += 1) {
    if (segments[blocks[i]!] !== segments[blocks[best]!]) best = i;
    else if (out[i]! > out[best]!) {
      out[best]! *= SECOND_SHARE;
      best = i;
    } else out[i]! *= SECOND_SHARE;
  }
}
