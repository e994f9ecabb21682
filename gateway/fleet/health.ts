export interface HealthSettings {
  /** Milliseconds between two checks; 0: none. */
  interval_ms: number;
  timeout_ms: number;
  /** Failed checks in a row after which a backend is unhealthy. */
  failures: number;
  path: string;
}

/** What active checks say of a backend. One good check makes it healthy again. */
export class Health {
  #failed = 0;
  #since: number | undefined;

  /** Since when it has been unhealthy, in `performance.now()`; undefined while it is healthy or was not checked. */
  get unhealthySince(): number | undefined {
    return this.#since;
  }

  /** Notes a check; tells whether the state changed. */
  note(good: boolean, failures: number): boolean {
    const before = this.#since;
    this.#failed = good ? 0 : this.#failed + 1;
    if (good) this.#since = undefined;
    else if (this.#failed >= failures) this.#since ??= performance.now();
    return (before === undefined) !== (this.#since === undefined);
  }

  /** Checks have ended: what they said holds no more. */
  reset(): void {
    this.#failed = 0;
    this.#since = undefined;
  }
}
