import { z } from 'zod';
import { share, tokenCount } from './bounds.ts';
import { blocksOf, type Controller, defineController, type Member, outputBlocksEver } from './controller.ts';

export interface AdaptiveOptions {
  /** Of the value of all blocks that a request ever had, the share that it is to keep. */
  cover: number;
  /** Weight of the newest demand in the moving average, in (0, 0.3]. */
  damping: number;
  /** The share in force changes only when the average is further away from it than this. */
  hysteresis: number;
  floorTokens: number;
}

const schema = z.strictObject({
  type: z.literal('adaptive'),
  cover: share.gt(0).default(0.9),
  damping: z.number().gt(0).max(0.3).default(0.2),
  hysteresis: share.default(0.05),
  floor_tokens: tokenCount.default(256),
});

export const adaptive = defineController({
  summary:
    'Each request holds as many blocks as it takes to keep the share `cover` of the value of all blocks it ever had, damped.',
  group: 'profile',
  schema,
  options: ({ cover, damping, hysteresis, floor_tokens }) => ({
    cover,
    damping,
    hysteresis,
    floorTokens: floor_tokens,
  }),
  create: createAdaptiveController,
});

/** A request's share, and the moving average that it follows. */
interface DampedShare {
  /** Evictable blocks, holes included, when the demand was last taken. */
  atBlocks: number;
  average: number;
  share: number;
}

/**
 * The budget follows the demand itself and not demand over budget, which swings with period two. A request begins with
 * the whole of its cache; each block that becomes evictable takes one step of a moving average towards its
 * demand. The newest blocks come on top: they are protected anyway.
 */
export function createAdaptiveController(options: AdaptiveOptions): Controller {
  const shares = new WeakMap<Member, DampedShare>();

  const shareOf = (member: Member): DampedShare => {
    const { table } = member;
    const blocks = table.last - table.first;
    let damped = shares.get(member);
    if (damped === undefined) {
      damped = { atBlocks: 0, average: 1, share: 1 };
      shares.set(member, damped);
    }
    if (blocks === damped.atBlocks) return damped;
    if (blocks > damped.atBlocks) {
      damped.average += options.damping * (member.ranking.demand(options.cover) - damped.average);
      if (Math.abs(damped.average - damped.share) > options.hysteresis) damped.share = damped.average;
    }
    damped.atBlocks = blocks;
    return damped;
  };

  const excess = (member: Member, share: number, aheadTokens: number): number => {
    const { table } = member;
    if (table.tokens === 0) return 0;
    const ever = outputBlocksEver(member, aheadTokens);
    const given = Math.floor((1 - share) * (table.last - table.first));
    return ever - table.gone - Math.max(blocksOf(options.floorTokens, table), ever - given);
  };

  return {
    quotas(members, _pool, quotas) {
      for (let i = 0; i < members.length; i += 1) {
        const member = members[i]!;
        quotas[i] = Math.max(0, excess(member, shareOf(member).share, 1));
      }
    },
    // Every request that outgrows the floor will lose blocks.
    expectsEviction: (member, _pool, aheadTokens) =>
      outputBlocksEver(member, 1 + aheadTokens) > blocksOf(options.floorTokens, member.table),
  };
}
