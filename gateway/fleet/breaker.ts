import { backoffMs } from '../../common/time.ts';

export const BREAKER_STATES = ['closed', 'open', 'half_open'] as const;
export type BreakerState = (typeof BREAKER_STATES)[number];

export interface BreakerSettings {
  /** Failures in a row that open it. */
  failures: number;
  /** Share of failures, 0 to 1, that opens it, once there were `min_requests` within `window_ms`. */
  failure_share: number;
  min_requests: number;
  window_ms: number;
  /** How long it stays open; twice as long each time that the test after it fails, up to `open_max_ms`. */
  open_ms: number;
  open_max_ms: number;
}

/** A request that the breaker was asked about. `test`: it was sent while the breaker was not closed. */
export interface Permit {
  readonly test: boolean;
}

/**
 * Keeps requests from a backend that fails. Closed: all pass. Open: none should, for a time. Half-open: one may, and
 * decides. Who sends one nevertheless (all others look as bad) makes a test of it: its success closes the breaker.
 *
 * Ask `allows`, then `begin`; end each permit once, by `succeed`, `fail` or `forget`.
 */
export class Breaker {
  readonly #settings: () => BreakerSettings;
  readonly #now: () => number;
  #inRow = 0;
  #window = { startedAt: 0, requests: 0, failures: 0 };
  #open: { since: number; until: number; times: number } | undefined;
  #tests = 0;

  constructor(settings: () => BreakerSettings, now: () => number = () => performance.now()) {
    this.#settings = settings;
    this.#now = now;
  }

  get state(): BreakerState {
    if (this.#open === undefined) return 'closed';
    return this.#now() < this.#open.until ? 'open' : 'half_open';
  }

  /** Since when it has not been closed, in `performance.now()`. */
  get openSince(): number | undefined {
    return this.#open?.since;
  }

  get allows(): boolean {
    return this.#open === undefined || (this.#tests === 0 && this.#now() >= this.#open.until);
  }

  begin(): Permit {
    const test = this.#open !== undefined;
    if (test) this.#tests++;
    return test ? TEST : PLAIN;
  }

  succeed({ test }: Permit): void {
    if (test) this.#tests--;
    // Sent before it opened: says nothing about now.
    if (!test && this.#open !== undefined) return;
    this.#open = undefined;
    this.#inRow = 0;
    this.#count(0);
  }

  /** True: it has opened, or opened again. */
  fail({ test }: Permit): boolean {
    if (test) this.#tests--;
    const now = this.#now();
    if (this.#open !== undefined) {
      if (!test || now < this.#open.until) return false;
      this.#openFor(this.#open.times + 1, this.#open.since);
      return true;
    }
    this.#inRow++;
    this.#count(1);
    const { failures, failure_share, min_requests } = this.#settings();
    const { requests, failures: failed } = this.#window;
    if (this.#inRow < failures && (requests < min_requests || failed < requests * failure_share)) return false;
    this.#openFor(1, now);
    return true;
  }

  /** The request ended without telling anything about the backend. */
  forget({ test }: Permit): void {
    if (test) this.#tests--;
  }

  /** There is a sign that the backend is back: it may be tested at once. */
  recheck(): void {
    if (this.#open !== undefined) this.#open.until = Math.min(this.#open.until, this.#now());
  }

  #openFor(times: number, since: number): void {
    const { open_ms, open_max_ms } = this.#settings();
    const ms = backoffMs(times, { firstMs: open_ms, maxMs: open_max_ms });
    this.#open = { since, until: this.#now() + ms, times };
    this.#inRow = 0;
    this.#window = { startedAt: this.#now(), requests: 0, failures: 0 };
  }

  #count(failed: 0 | 1): void {
    const now = this.#now();
    if (now - this.#window.startedAt > this.#settings().window_ms) {
      this.#window = { startedAt: now, requests: 0, failures: 0 };
    }
    this.#window.requests++;
    this.#window.failures += failed;
  }
}

/** A sign about a backend that no permit of its own stands for. */
export const PLAIN: Permit = { test: false };
const TEST: Permit = { test: true };
