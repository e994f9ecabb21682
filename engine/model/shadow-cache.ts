import type { KeepRule } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { CacheLayout, MergeBlocks, TokenSlots } from './cache-layout.ts';
import { slotsOf } from './cache-layout.ts';
import { moves } from './keep-rule.ts';

/** Marks the candidates that stay with 1: as many as there is room for. */
export type SelectTokens = (
  layer: number,
  head: number,
  slots: TokenSlots,
  room: number,
  rule: KeepRule | undefined,
) => Uint8Array;

/** What the measured query of a chunk gives to marked tokens, for each head group. */
export interface MarkedReads {
  /** Its attention on them, averaged over the query heads of the group. */
  missed: Float64Array;
  /** How many of them it is the first to read. */
  regretted: Uint32Array;
}

/** Marks of a token. */
const MARKED = 1;
/** Marked, and read by a later query. */
const REGRETTED = 2;

/**
 * What a request's cache would hold if its shadow plans had been carried out: in each head group, which tokens are in
 * which logical block, and which would be gone. The cache itself stays whole; so a token is known by its slot in the pool.
 */
export class ShadowCache {
  /** A marked token is read when it gets at least this share of its head group's attention. */
  readShare = 1;
  readonly #layout: Pick<CacheLayout, 'layers' | 'kvHeads' | 'blockSize'>;
  readonly #select: SelectTokens;
  /** By block of the pool: the slots that it would hold, for each head group. Others hold what they really hold. */
  readonly #held = new Map<number, readonly Int32Array[]>();
  /** Blocks of the pool that would be free. */
  readonly #gone = new Set<number>();
  /** By block of the pool: [head groups][blockSize]. */
  readonly #marks = new Map<number, Uint8Array>();

  constructor(layout: Pick<CacheLayout, 'layers' | 'kvHeads' | 'blockSize'>, select: SelectTokens) {
    this.#layout = layout;
    this.#select = select;
  }

  /** Whether a block of the pool would be free by now. */
  isGone(block: number): boolean {
    return this.#gone.has(block);
  }

  get marksAny(): boolean {
    return this.#marks.size > 0;
  }

  /** Marks what the blocks would hold. */
  evict(blocks: readonly number[]): void {
    for (let group = 0; group < this.#groups; group++) this.#mark(group, this.#slots(group, blocks));
    this.#drop(blocks);
  }

  /** Marks what a merge would let go, and takes note of what its blocks would hold. Blocks that are gone are not named. */
  merge({ into, from, beside }: MergeBlocks, rule?: KeepRule): void {
    const { kvHeads, blockSize } = this.#layout;
    const room = into.length * blockSize;
    const held = into.map((): Int32Array[] => []);
    for (let group = 0; group < this.#groups; group++) {
      const candidates = this.#slots(group, [...into, ...from]);
      const slots = { candidates, beside: this.#slots(group, beside) };
      const stays = this.#select(Math.floor(group / kvHeads), group % kvHeads, slots, room, rule);
      this.#mark(
        group,
        candidates.filter((_, i) => stays[i] === 0),
      );
      for (const [place, to] of moves(stays, room)) candidates[to] = candidates[place]!;
      held.forEach((groups, i) => {
        groups.push(candidates.slice(i * blockSize, (i + 1) * blockSize));
      });
    }
    into.forEach((block, i) => {
      this.#held.set(block, held[i]!);
    });
    this.#drop(from);
  }

  /**
   * Adds what a query of one layer gives to marked tokens.
   *
   * @param blocks the blocks of the pool that it reads
   * @param mean [kvHeads][blocks][blockSize] its attention, averaged over the query heads of each group
   */
  note(layer: number, blocks: ArrayLike<number>, mean: Float32Array, { missed, regretted }: MarkedReads): void {
    const { kvHeads, blockSize } = this.#layout;
    for (let b = 0; b < blocks.length; b++) {
      const marks = this.#marks.get(blocks[b]!);
      if (marks === undefined) continue;
      for (let head = 0; head < kvHeads; head++) {
        const group = layer * kvHeads + head;
        const first = (head * blocks.length + b) * blockSize;
        for (let j = 0; j < blockSize; j++) {
          const mark = marks[group * blockSize + j]!;
          if (mark === 0) continue;
          const share = mean[first + j]!;
          missed[group]! += share;
          if (mark !== MARKED || share < this.readShare) continue;
          regretted[group]! += 1;
          marks[group * blockSize + j] = REGRETTED;
        }
      }
    }
  }

  /** The marked slots of a head group, ascending. */
  marked(group: number): number[] {
    const { blockSize } = this.#layout;
    return [...this.#marks]
      .flatMap(([block, marks]) =>
        Array.from(marks.subarray(group * blockSize, (group + 1) * blockSize)).flatMap((mark, j) =>
          mark === 0 ? [] : [block * blockSize + j],
        ),
      )
      .sort((a, b) => a - b);
  }

  get #groups(): number {
    return this.#layout.layers * this.#layout.kvHeads;
  }

  #slots(group: number, blocks: readonly number[]): Int32Array {
    const { blockSize } = this.#layout;
    const slots = slotsOf(blocks, blockSize);
    blocks.forEach((block, i) => {
      const held = this.#held.get(block);
      if (held !== undefined) slots.set(held[group]!, i * blockSize);
    });
    return slots;
  }

  #drop(blocks: readonly number[]): void {
    for (const block of blocks) {
      this.#held.delete(block);
      this.#gone.add(block);
    }
  }

  #mark(group: number, slots: Int32Array): void {
    const { blockSize } = this.#layout;
    for (const slot of slots) {
      const block = Math.floor(slot / blockSize);
      let marks = this.#marks.get(block);
      if (marks === undefined) {
        marks = new Uint8Array(this.#groups * blockSize);
        this.#marks.set(block, marks);
      }
      marks[group * blockSize + (slot % blockSize)] = MARKED;
    }
  }
}
