import { z } from 'zod';
import { share, tokenCount } from './bounds.ts';
import { blocksOf, type Controller, defineController, type Member, outputBlocksEver } from './controller.ts';

export interface RatioOptions {
  /** Of all output blocks that the request ever had, in (0, 1]. */
  share: number;
  /** Output tokens that every request keeps. */
  floorTokens: number;
}

const schema = z.strictObject({
  type: z.literal('ratio'),
  /** Of what a request has generated so far. */
  share: share.gt(0),
  floor_tokens: tokenCount.default(256),
});

export const ratio = defineController({
  summary: 'Each request holds at most `share` of what it has generated so far, and at least `floor_tokens`.',
  group: 'profile',
  schema,
  options: (config) => ({ share: config.share, floorTokens: config.floor_tokens }),
  create: createRatioController,
});

/** The budget grows with the request: nobody has to know in advance how long it will think. */
export function createRatioController(options: RatioOptions): Controller {
  const excess = (member: Member, aheadTokens: number): number => {
    const { table } = member;
    if (table.tokens === 0) return 0;
    const ever = outputBlocksEver(member, aheadTokens);
    return ever - table.gone - Math.max(blocksOf(options.floorTokens, table), Math.ceil(options.share * ever));
  };
  return {
    quotas(members, _pool, quotas) {
      for (let i = 0; i < members.length; i += 1) quotas[i] = Math.max(0, excess(members[i]!, 1));
    },
    expectsEviction: (member, _pool, aheadTokens) => excess(member, 1 + aheadTokens) > 0,
  };
}
