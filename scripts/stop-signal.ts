/** One Ctrl-C can arrive twice: from the terminal and once more from npm, which passes it on. */
const ECHO_MS = 500;

/** Turns SIGINT, SIGTERM and SIGHUP into "stop" and, when another comes later, "stop by force". */
export class StopSignal {
  readonly #now: () => number;
  readonly #controller = new AbortController();
  /** Resolves with undefined at the first signal. */
  readonly requested: Promise<undefined>;
  #first: number | undefined;
  #force = () => {};

  constructor(source: Pick<NodeJS.EventEmitter, 'on'> = process, now: () => number = () => performance.now()) {
    this.#now = now;
    this.requested = new Promise((resolve) => {
      this.signal.addEventListener('abort', () => resolve(undefined));
    });
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) source.on(name, () => this.#receive());
  }

  /** Aborted at the first signal. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** What a second signal does. */
  onSecond(force: () => void): void {
    this.#force = force;
  }

  #receive(): void {
    const now = this.#now();
    if (this.#first === undefined) {
      this.#first = now;
      this.#controller.abort(new Error('stopped by a signal'));
    } else if (now - this.#first > ECHO_MS) {
      this.#force();
    }
  }
}
