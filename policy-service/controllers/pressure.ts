import type { Controller, Member, Pool } from './controller.ts';

export interface PressureOptions {
  lowFreeShare: number;
  highFreeShare: number;
  probeFreeShare: number;
  /** A request never holds less than so many tokens of output, nor than this share of all that it ever had. */
  floorTokens: number;
  floorShare: number;
  /** That share once it answers: what it thought is read for the last time. The tokens do not count any more. */
  answerFloorShare: number;
}

/**
 * Nothing goes while memory is free. Below the low watermark, or while requests wait and the high watermark is not
 * reached, the least valuable blocks of all requests go until the high watermark is.
 *
 * Keep values of different requests do not compare (their clocks and policies differ), their ranks do: the i-th block
 * of a request from below ranks (given + i) / (given + evictable), where `given` blocks have gone already. Blocks go by
 * rank over all requests, so that each ends up having given the same share of its old output, long ones more blocks.
 */
export function createPressureController(options: PressureOptions): Controller {
  let active = false;
  let given = new Float64Array(0);
  let whole = new Float64Array(0);
  let most = new Float64Array(0);

  const need = (pool: Pool): number => {
    const free = pool.freeBlocks + pool.promisedBlocks;
    const high = Math.ceil(options.highFreeShare * pool.totalBlocks);
    if (free >= high) active = false;
    else if (free < options.lowFreeShare * pool.totalBlocks || pool.waiting > 0) active = true;
    return active ? high - free : 0;
  };

  const quotaAt = (i: number, share: number): number =>
    Math.max(0, Math.min(most[i]!, Math.floor(share * whole[i]!) - given[i]!));

  return {
    quotas(members, pool, quotas) {
      for (let i = 0; i < members.length; i += 1) quotas[i] = 0;
      let needed = need(pool);
      if (needed <= 0) return;
      if (given.length < members.length) {
        given = new Float64Array(members.length * 2);
        whole = new Float64Array(members.length * 2);
        most = new Float64Array(members.length * 2);
      }
      let available = 0;
      for (let i = 0; i < members.length; i += 1) {
        const { table, isAnswering } = members[i]!;
        const evictable = Math.max(0, table.liveEvictable - table.pending - table.virtual);
        given[i] = table.gone;
        whole[i] = table.gone + evictable;
        const held = table.outputBlocksAt(table.tokens + 1);
        const floorShare = isAnswering ? options.answerFloorShare : options.floorShare;
        const floorBlocks = isAnswering ? 0 : Math.ceil(options.floorTokens / table.blockSize);
        const floor = Math.max(floorBlocks, Math.ceil(floorShare * (held + table.gone)));
        most[i] = Math.max(0, Math.min(evictable, held - floor));
        available += most[i]!;
      }
      needed = Math.min(needed, available);
      const share = lowestShare(members.length, needed, quotaAt);
      let total = 0;
      for (let i = 0; i < members.length; i += 1) {
        quotas[i] = quotaAt(i, share);
        total += quotas[i]!;
      }
      for (let i = members.length - 1; i >= 0 && total > needed; i -= 1) {
        if (quotas[i]! === 0 || quotas[i]! === quotaAt(i, share - 1e-6)) continue;
        quotas[i]! -= 1;
        total -= 1;
      }
    },
    expectsEviction: (_member: Member, pool) => active || pool.freeBlocks < options.probeFreeShare * pool.totalBlocks,
  };
}

/** The lowest rank, to one in a million, below which `needed` blocks lie. */
function lowestShare(members: number, needed: number, quotaAt: (i: number, share: number) => number): number {
  let low = 0;
  let high = 1;
  while (high - low > 1e-7) {
    const middle = (low + high) / 2;
    let total = 0;
    for (let i = 0; i < members; i += 1) total += quotaAt(i, middle);
    if (total >= needed) high = middle;
    else low = middle;
  }
  return high;
}
