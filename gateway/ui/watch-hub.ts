import { backoffMs } from '../../common/time.ts';
import type { WatchResponse } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { PolicyPeer } from '../fleet/policy-peer.ts';
import { stateEvent } from './state-event.ts';

/** Somebody who looks. `send` writes one event, or leaves it out when the last one has not got through yet. */
export interface Viewer {
  send(event: 'state' | 'lost', data: string): void;
}

/** Milliseconds between two states: as smooth as the service allows, and seldom where describing them is real work. */
const FAST_MS = 50;
const SLOW_MS = 1_000;
/** Above the first the watch becomes slow, below the second fast again. */
const MANY_REQUESTS = 32;
const FEW_REQUESTS = 16;
/** A state that says nothing new is left out, but not for longer than this: charts go on. */
const REPEAT_MS = 1_000;
const RETRY = { firstMs: 250, maxMs: 5_000 };

/**
 * One watch of a policy service, shared by everybody who looks at it: begun with the first viewer, ended with the last,
 * and begun again when it breaks. What a viewer gets first is the newest state that is known.
 */
export class WatchHub {
  readonly #source: number;
  readonly #peer: PolicyPeer;
  readonly #viewers = new Set<Viewer>();
  readonly #counted = new Map<string, number>();
  #generatedTokens = 0;
  #intervalMs = FAST_MS;
  #cancel: (() => void) | undefined;
  #retry: NodeJS.Timeout | undefined;
  #losses = 0;
  #last: string | undefined;
  #lastAt = 0;

  constructor(source: number, peer: PolicyPeer) {
    this.#source = source;
    this.#peer = peer;
  }

  get watching(): boolean {
    return this.#cancel !== undefined;
  }

  /** Returns what ends it. */
  add(viewer: Viewer): () => void {
    this.#viewers.add(viewer);
    if (this.#last !== undefined) viewer.send('state', this.#last);
    if (this.#cancel === undefined && this.#retry === undefined) this.#watch();
    return () => {
      if (this.#viewers.delete(viewer) && this.#viewers.size === 0) this.#end();
    };
  }

  #watch(): void {
    this.#retry = undefined;
    let call: ReturnType<PolicyPeer['watch']>;
    try {
      call = this.#peer.watch(this.#intervalMs);
    } catch {
      // The backend was taken out, and its peer closed: nothing comes back.
      this.#tellLoss();
      return;
    }
    let live = true;
    this.#cancel = () => {
      live = false;
      call.cancel();
    };
    const broke = () => {
      if (!live) return;
      live = false;
      this.#cancel = undefined;
      this.#tellLoss();
      this.#losses++;
      this.#retry = setTimeout(() => this.#watch(), backoffMs(this.#losses, RETRY));
    };
    call.on('data', (state: WatchResponse) => {
      if (live) this.#tell(state);
    });
    // An error is always followed by nothing or by the end: whichever comes first counts.
    call.on('error', broke);
    call.on('end', broke);
  }

  #tellLoss(): void {
    this.#last = undefined;
    for (const viewer of this.#viewers) viewer.send('lost', JSON.stringify({ source: this.#source }));
  }

  #tell(state: WatchResponse): void {
    this.#losses = 0;
    const data = stateEvent(this.#source, state, this.#total(state));
    const now = performance.now();
    if (data !== this.#last || now - this.#lastAt >= REPEAT_MS) {
      this.#last = data;
      this.#lastAt = now;
      for (const viewer of this.#viewers) viewer.send('state', data);
    }
    const count = state.requests.length;
    const interval = count > MANY_REQUESTS ? SLOW_MS : count < FEW_REQUESTS ? FAST_MS : this.#intervalMs;
    if (interval === this.#intervalMs) return;
    this.#intervalMs = interval;
    this.#cancel?.();
    this.#watch();
  }

  #total({ requests }: WatchResponse) {
    const seen = new Set<string>();
    let residentBlocks = 0;
    let fullBlocks = 0;
    let running = 0;
    for (const request of requests) {
      const key = `${request.engineId} ${request.handle}`;
      const generated = Math.max(0, request.computedTokens - request.promptTokens);
      // A preemption computes the same tokens again.
      this.#generatedTokens += Math.max(0, generated - (this.#counted.get(key) ?? 0));
      this.#counted.set(key, Math.max(generated, this.#counted.get(key) ?? 0));
      if (request.ended) continue;
      seen.add(key);
      running += 1;
      residentBlocks += request.residentBlocks;
      fullBlocks += request.blocks;
    }
    for (const key of this.#counted.keys()) if (!seen.has(key)) this.#counted.delete(key);
    return { requests: running, residentBlocks, fullBlocks, generatedTokens: this.#generatedTokens };
  }

  #end(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#losses = 0;
    this.#last = undefined;
    this.#counted.clear();
  }
}
