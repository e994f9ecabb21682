import { z } from 'zod';
import { grown } from '../grown.ts';
import { takeLowest } from '../request/select.ts';
import { share, tokenCount } from './bounds.ts';
import { blocksOf, type Controller, defineController, type Member, outputBlocksEver, type Pool } from './controller.ts';

export interface PressureOptions {
  lowFreeShare: number;
  highFreeShare: number;
  probeFreeShare: number;
  /** Every request keeps at least this many output tokens, and at least this share of all that it ever had. */
  floorTokens: number;
  floorShare: number;
  /** The share once it answers. Its reasoning is read for the last time, so the floor in tokens no longer applies. */
  answerFloorShare: number;
  /** The floors while its blocks are merged. */
  mergeFloorTokens: number;
  mergeFloorShare: number;
}

const schema = z
  .strictObject({
    type: z.literal('pressure'),
    /** Evictions begin when less than this share of the pool is free. */
    low_free_share: share.default(0.1),
    /** They end when this share is free; requests that wait for memory count as pressure below it. */
    high_free_share: share.default(0.2),
    /** Answer probes begin when less than this share is free, so that they are known when evictions begin. */
    probe_free_share: share.default(0.4),
    /** Output tokens that every request keeps, and the share of all that it ever had; that share once it answers. */
    floor_tokens: tokenCount.default(256),
    floor_share: share.default(0.75),
    answer_floor_share: share.default(0.5),
    /** The same where blocks are merged. */
    merge_floor_tokens: tokenCount.default(128),
    merge_floor_share: share.default(0.5),
  })
  .refine((value) => value.low_free_share <= value.high_free_share, {
    message: 'low_free_share must not be above high_free_share',
    path: ['low_free_share'],
  });

export const pressure = defineController({
  summary: 'Nothing is evicted while memory is free. Then the least valuable blocks of all running requests go first.',
  group: 'profile',
  schema,
  options: (config) => ({
    lowFreeShare: config.low_free_share,
    highFreeShare: config.high_free_share,
    probeFreeShare: config.probe_free_share,
    floorTokens: config.floor_tokens,
    floorShare: config.floor_share,
    answerFloorShare: config.answer_floor_share,
    mergeFloorTokens: config.merge_floor_tokens,
    mergeFloorShare: config.merge_floor_share,
  }),
  create: createPressureController,
});

/**
 * Nothing goes while memory is free. Below the low watermark, or while requests wait and the high watermark is not
 * reached, the least valuable blocks of all requests go until the high watermark is.
 *
 * Values are computed only when something has to go, and selected without sorting: each request offers its least
 * valuable blocks down to its floor, and the lowest of all offers go.
 */
export function createPressureController(options: PressureOptions): Controller {
  let active = false;
  let values = new Float64Array(0);
  let owners = new Int32Array(0);

  const need = (pool: Pool): number => {
    const free = pool.freeBlocks + pool.promisedBlocks;
    const high = Math.ceil(options.highFreeShare * pool.totalBlocks);
    if (free >= high) active = false;
    else if (free < options.lowFreeShare * pool.totalBlocks || pool.waiting > 0) active = true;
    return active ? high - free : 0;
  };

  const floorOf = ({ merges, isAnswering }: Member) => {
    if (merges) return { tokens: options.mergeFloorTokens, share: options.mergeFloorShare };
    if (isAnswering) return { tokens: 0, share: options.answerFloorShare };
    return { tokens: options.floorTokens, share: options.floorShare };
  };

  /** Blocks that a request may lose before it is down to its floor. */
  const spare = (member: Member): number => {
    const { table } = member;
    const ever = outputBlocksEver(member, 1);
    const { tokens, share } = floorOf(member);
    const floor = Math.max(blocksOf(tokens, table), Math.ceil(share * ever));
    return Math.max(0, Math.min(table.liveEvictable - table.pending - table.virtual, ever - table.gone - floor));
  };

  /** Writes the values that a request offers from index `at` on; returns how many. */
  const offer = (member: Member, i: number, at: number): number => {
    const most = spare(member);
    if (most === 0) return 0;
    const end = at + member.table.liveCount;
    values = grown(values, end);
    owners = grown(owners, end);
    const count = member.ranking.comparableValues(values, at);
    const offered = Math.min(most, count);
    // `owners` is only moved along here; it is filled in below.
    takeLowest(owners.subarray(at), values.subarray(at), count, offered);
    owners.fill(i, at, at + offered);
    return offered;
  };

  /**
   * A merge compares all keys of a request, however little it frees: a few large ones cost less than many small ones.
   */
  const takeFromLongest = (members: readonly Member[], needed: number, quotas: number[]) => {
    const spares = members.map((member, i) => ({ i, blocks: spare(member) })).sort((a, b) => b.blocks - a.blocks);
    let left = needed;
    for (const { i, blocks } of spares) {
      quotas[i] = Math.min(blocks, left);
      left -= quotas[i];
    }
  };

  return {
    quotas(members, pool, quotas) {
      for (let i = 0; i < members.length; i += 1) quotas[i] = 0;
      const needed = need(pool);
      if (needed <= 0) return;
      if (members.every(({ merges }) => merges)) return takeFromLongest(members, needed, quotas);
      let offered = 0;
      for (let i = 0; i < members.length; i += 1) offered += offer(members[i]!, i, offered);
      const given = takeLowest(owners, values, offered, Math.min(needed, offered));
      for (let i = 0; i < given; i += 1) quotas[owners[i]!]! += 1;
    },
    expectsEviction: (_member: Member, pool) => active || pool.freeBlocks < options.probeFreeShare * pool.totalBlocks,
  };
}
