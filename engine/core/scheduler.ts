import type { PoolState } from '../../proto/gen/crystalkv/v1/policy.ts';
import { type BlockPool, prefixHashes } from './block-pool.ts';
import type { Sequence } from './sequence.ts';

export interface SchedulerLimits {
  /** Limit of concurrent sequences, probes included. */
  maxSequences: number;
  /** Limit of tokens per step; longer prompts are prefilled in chunks. */
  maxTokens: number;
}

/** This step computes the next `count` tokens of a sequence. */
export interface Scheduled {
  sequence: Sequence;
  count: number;
}

export interface SchedulerCounters {
  preemptions: number;
  prefixCacheQueries: number;
  prefixCacheHits: number;
}

/**
 * Continuous batching as in vLLM's scheduler: running sequences first, in order of arrival, then as many waiting ones
 * as fit. When blocks run out, probes are dropped first. After that, the sequence that started last is preempted: it
 * loses its cache and goes to the head of the queue, to be computed again.
 */
export class Scheduler {
  readonly running: Sequence[] = [];
  readonly waiting: Sequence[] = [];
  readonly counters: SchedulerCounters = { preemptions: 0, prefixCacheQueries: 0, prefixCacheHits: 0 };
  readonly #pool: BlockPool;
  readonly #limits: SchedulerLimits;
  readonly #hashes = new WeakMap<Sequence, string[]>();
  /** Called after a sequence has lost its cache. */
  readonly #onPreempted: (sequence: Sequence) => void;
  /** Called before the blocks of a dropped probe are freed. */
  readonly #onDropped: (probe: Sequence) => void;

  constructor(
    pool: BlockPool,
    limits: SchedulerLimits,
    onPreempted: (sequence: Sequence) => void,
    onDropped: (probe: Sequence) => void,
  ) {
    this.#pool = pool;
    this.#limits = limits;
    this.#onPreempted = onPreempted;
    this.#onDropped = onDropped;
  }

  /** The state of pool and queues. Probes do not count as running. */
  get poolState(): PoolState {
    return {
      freeBlocks: this.#pool.free,
      totalBlocks: this.#pool.total,
      waiting: this.waiting.length,
      running: this.running.filter((sequence) => sequence.fork === undefined).length,
      preemptions: BigInt(this.counters.preemptions),
    };
  }

  /** What to compute next; empty when there is nothing to do. */
  schedule(): Scheduled[] {
    let budget = this.#limits.maxTokens;
    const scheduled: Scheduled[] = [];
    let preempted = false;
    for (let i = 0; i < this.running.length && budget > 0; i++) {
      const sequence = this.running[i]!;
      const count = Math.min(sequence.pending, budget);
      while (!this.#grow(sequence, sequence.computed + count)) {
        const victim = this.#makeRoom();
        preempted = true;
        if (victim === sequence) break;
      }
      // the sequence was preempted itself, or it moved up because a probe before it was dropped
      if (preempted) i = this.running.indexOf(sequence);
      if (i === -1) break;
      scheduled.push({ sequence, count });
      budget -= count;
    }
    while (!preempted && budget > 0 && this.running.length < this.#limits.maxSequences) {
      const sequence = this.waiting[0];
      if (sequence === undefined || !this.#admit(sequence)) break;
      this.waiting.shift();
      this.running.push(sequence);
      const count = Math.min(sequence.pending, budget);
      scheduled.push({ sequence, count });
      budget -= count;
    }
    return preempted ? scheduled.filter(({ sequence }) => this.running.includes(sequence)) : scheduled;
  }

  /**
   * Starts a probe at once or not at all. It needs a running slot and all blocks that it will ever use, so it never
   * preempts anyone.
   * @param tokens limit of the tokens that the probe will have in its cache
   * @returns false when there is no room
   */
  startProbe(probe: Sequence, shared: readonly number[], tokens: number): boolean {
    const missing = this.#pool.blocksFor(tokens) - shared.length;
    // a spare block for each running sequence and for one more: the probe must not be why the next step preempts
    const spare = this.running.length + 1;
    if (this.running.length >= this.#limits.maxSequences || !this.#pool.canAllocate(missing + spare)) return false;
    for (const block of shared) if (block !== 0) this.#pool.share(block);
    probe.blocks = [...shared, ...this.#pool.allocate(missing)];
    probe.computed = shared.length * this.#pool.blockSize;
    this.running.push(probe);
    return true;
  }

  /** Removes a sequence from both queues and frees its blocks. */
  remove(sequence: Sequence): void {
    for (const queue of [this.running, this.waiting]) {
      const at = queue.indexOf(sequence);
      if (at !== -1) queue.splice(at, 1);
    }
    this.#release(sequence);
  }

  /** Publishes computed prompt blocks to the prefix cache. A probe publishes nothing. */
  publish(sequence: Sequence): void {
    if (sequence.fork !== undefined) return;
    const full = this.#pool.filledBy(Math.min(sequence.computed, sequence.promptTokens));
    const hashes = this.#hashesOf(sequence);
    for (; sequence.published < full; sequence.published++) {
      this.#pool.publish(sequence.blocks[sequence.published]!, hashes[sequence.published]!);
    }
  }

  /** Gives a waiting sequence blocks for all its tokens, from the prefix cache where possible. False: no room. */
  #admit(sequence: Sequence): boolean {
    // the last token is always computed: its logits are needed
    const usable = this.#pool.filledBy(sequence.tokenIds.length - 1);
    const found = this.#pool.lookUp(this.#hashesOf(sequence).slice(0, usable));
    const needed = this.#pool.blocksFor(sequence.tokenIds.length) - found.length;
    const idle = found.filter((block) => this.#pool.references(block) === 0).length;
    if (!this.#pool.canAllocate(needed + idle)) return false;
    for (const block of found) this.#pool.share(block);
    sequence.blocks = [...found, ...this.#pool.allocate(needed)];
    sequence.computed = found.length * this.#pool.blockSize;
    sequence.published = found.length;
    if (sequence.epoch === 0) {
      sequence.cachedTokens = sequence.computed;
      this.counters.prefixCacheQueries += sequence.promptTokens;
      this.counters.prefixCacheHits += sequence.computed;
    }
    return true;
  }

  #grow(sequence: Sequence, tokens: number): boolean {
    const missing = this.#pool.blocksFor(tokens) - sequence.blocks.length;
    if (missing <= 0) return true;
    if (!this.#pool.canAllocate(missing)) return false;
    sequence.blocks.push(...this.#pool.allocate(missing));
    return true;
  }

  /** Frees the blocks of the least important sequence and returns it: a probe if there is one, else the last to start. */
  #makeRoom(): Sequence {
    const probe = this.running.findLast((sequence) => sequence.fork !== undefined);
    if (probe !== undefined) {
      this.#onDropped(probe);
      this.remove(probe);
      return probe;
    }
    const victim = this.running.pop()!;
    this.#release(victim);
    victim.resetCache();
    this.waiting.unshift(victim);
    this.counters.preemptions += 1;
    this.#onPreempted(victim);
    return victim;
  }

  /** Frees the tail first, so that the head of a shared prefix stays cached longest. */
  #release(sequence: Sequence): void {
    this.#pool.release(sequence.blocks.toReversed());
    sequence.blocks = [];
  }

  #hashesOf(sequence: Sequence): string[] {
    let hashes = this.#hashes.get(sequence);
    if (hashes === undefined) {
      hashes = prefixHashes(sequence.request.promptTokenIds, this.#pool.blockSize);
      this.#hashes.set(sequence, hashes);
    }
    return hashes;
  }
}
