/** Something that waits. */
export interface Waiting {
  readonly priority: number;
  readonly bytes: number;
}

/** Those that wait for the same: the highest priority first, among equals the one that came first. */
export class WaitQueue<T extends Waiting> {
  readonly #items: T[] = [];

  get length(): number {
    return this.#items.length;
  }

  /** In the order in which they are to be served. */
  [Symbol.iterator](): Iterator<T> {
    return this.#items[Symbol.iterator]();
  }

  first(n: number): readonly T[] {
    return this.#items.slice(0, n);
  }

  /** The one that would be served last. */
  get last(): T | undefined {
    return this.#items.at(-1);
  }

  add(item: T): void {
    this.#items.splice(this.#place(item.priority), 0, item);
  }

  /** False: it was not there. */
  remove(item: T): boolean {
    const at = this.#items.indexOf(item);
    if (at !== -1) this.#items.splice(at, 1);
    return at !== -1;
  }

  /** The index of the first with a lower priority. */
  #place(priority: number): number {
    let low = 0;
    let high = this.#items.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#items[middle] as T).priority >= priority) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
